"""The runtime: rows through a Release's graph. Needs ONNX Runtime, tokenizers and numpy."""
