"""Turn a model that somebody else trained into the two graphs of a bundle. Models in ONNX need no torch."""
