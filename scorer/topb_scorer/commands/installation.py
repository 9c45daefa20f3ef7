"""Check that the installed packages are compatible."""

from __future__ import annotations

from importlib import metadata

from topb_scorer.errors import InstallationError

# Packages that install into the same module, by the reason for more than one of them.
_ALTERNATIVES = {
    "ONNXRUNTIME_TWICE": ("onnxruntime", "onnxruntime-gpu"),
    "FAISS_TWICE": ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12"),
}


def check_installation() -> None:
    """Check that exactly one package of ONNX Runtime and one of FAISS is installed.

    The packages for the CPU and for GPUs install into the same module. If both are installed, they overwrite
    each other, and either may be imported.

    Raises:
        InstallationError: with reason SCORER_NOT_INSTALLED, ONNXRUNTIME_TWICE or FAISS_TWICE.
    """
    for reason, names in _ALTERNATIVES.items():
        installed = [name for name in names for _ in metadata.distributions(name=name)]
        if not installed:
            raise InstallationError(
                f"the scorer is not installed completely: expected one of {', '.join(names)}; "
                "pip install 'topb[scorer]', or 'topb[scorer-gpu]' for CUDA",
                reason="SCORER_NOT_INSTALLED",
            )
        if len(installed) > 1:
            raise InstallationError(
                f"{' and '.join(installed)} are installed together and overwrite each other: "
                "uninstall all of them, then install topb[scorer] or topb[scorer-gpu]",
                reason=reason,
            )
