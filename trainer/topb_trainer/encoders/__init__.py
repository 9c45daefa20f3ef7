"""The encoders of T: ResNet18, models of timm, the user's torch modules, ONNX files and those of bundles."""
