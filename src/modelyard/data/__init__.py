"""Rows: reading, splitting, looking at them."""
