"""The run wing: a Release behind an API."""
