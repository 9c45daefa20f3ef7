"""Whether the packages that are installed fit together."""

from __future__ import annotations

from importlib import metadata

from topb_scorer.errors import InstallationError


def check_onnxruntime() -> None:
    """Holds that exactly one of onnxruntime and onnxruntime-gpu is installed.

    Both write into the same package: with both there, which one is imported is chance.

    Raises:
        InstallationError: none is, or both are.
    """
    there = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if not there:
        raise InstallationError(
            "the scorer is not installed: pip install 'topb[scorer]', or 'topb[scorer-gpu]' for CUDA",
            reason="SCORER_NOT_INSTALLED",
        )
    if len(there) > 1:
        raise InstallationError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall both, then install topb[scorer] or topb[scorer-gpu]",
            reason="ONNXRUNTIME_TWICE",
        )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
