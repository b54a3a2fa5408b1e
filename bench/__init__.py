"""Benchmarks: `python -m bench [ROW ...]` measures and writes results.json and results.md."""
