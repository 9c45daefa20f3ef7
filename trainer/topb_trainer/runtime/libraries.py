"""The versions of the libraries on which a trained model and its picks depend."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import metadata

import onnxruntime

_RECORDED = (
    "topb",
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "numpy",
    "pillow",
    "simplejpeg",
    "pyarrow",
)


def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries and of Python by name, for bundles and records."""
    versions = {}
    for name in _RECORDED:
        # A model in ONNX is imported without torch.
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    # On a GPU machine the distribution is called onnxruntime-gpu, so ask the module for its version.
    return versions | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
