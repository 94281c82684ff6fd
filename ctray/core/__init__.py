"""What everything stands on: errors, boxes and grids, threads and processes."""
