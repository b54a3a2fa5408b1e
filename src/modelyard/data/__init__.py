"""Rows: read from where they are, looked at, split, and written."""
