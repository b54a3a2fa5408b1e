"""The papers of a release: its model card, lineage, bill of materials and project file."""
