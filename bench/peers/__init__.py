"""Beside the peers: the same model, texts and load generator, all in turn in one run."""
