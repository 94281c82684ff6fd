"""What a run writes down: its folder, receipts, table, events."""
