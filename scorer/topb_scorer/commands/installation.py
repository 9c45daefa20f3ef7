"""Check that the installed packages are compatible."""

from __future__ import annotations

from importlib import metadata

from topb_scorer.errors import InstallationError


def check_onnxruntime() -> None:
    """Check that exactly one of onnxruntime and onnxruntime-gpu is installed.

    Both install into the same package, so if both are installed, either may be imported.

    Raises:
        InstallationError: with reason SCORER_NOT_INSTALLED or ONNXRUNTIME_TWICE.
    """
    installed = [*metadata.distributions(name="onnxruntime"), *metadata.distributions(name="onnxruntime-gpu")]
    if not installed:
        raise InstallationError(
            "the scorer is not installed: pip install 'topb[scorer]', or 'topb[scorer-gpu]' for CUDA",
            reason="SCORER_NOT_INSTALLED",
        )
    if len(installed) > 1:
        raise InstallationError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install topb[scorer] or topb[scorer-gpu]",
            reason="ONNXRUNTIME_TWICE",
        )
