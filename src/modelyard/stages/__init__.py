"""The build wing: one file for each stage."""
