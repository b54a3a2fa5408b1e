"""Checks: each measures one thing of a model on rows, with its uncertainty."""
