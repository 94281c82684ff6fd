"""All drawing of the report: colours and lines, panels, whole figures, their encoding."""
