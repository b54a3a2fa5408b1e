"""Artefacts, store, stages, project file, errors, events: the floor all others stand on."""

PROJECT_FILE = "modelyard.toml"
