"""Grey value window and field of view: what a volume needs before the learning sees it."""
