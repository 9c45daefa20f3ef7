"""Select with a classifier of your own, in ONNX, and train AALU on top of its encoder.

    python examples/own_model.py model.onnx photos/ labels.csv rounds/ embedding logits

This needs the trainer: pip install 'topb[trainer]'. The CSV file has the columns id, path and label; without
it, the program stops after the first selection, which needs no labels.
"""
