"""Check the version of a state directory, which servers and selections in process share."""

from __future__ import annotations

from pathlib import Path

from topb_scorer.errors import NewerVersionError

LAYOUT_VERSION = 2
"""The version of the layout. Increase it when older versions of topb cannot read the new layout."""
VERSION_FILE = "version"
"""The file with the version, which servers write."""


def checked_version(path: Path) -> int:
    """Return the version of the layout, or 0 if there is none yet. Raise NewerVersionError if it is newer."""
    try:
        found = (path / VERSION_FILE).read_text(errors="replace").strip()
    except FileNotFoundError:
        return 0  # Version 1 did not have a version file at first.
    if not found.isdecimal() or int(found) > LAYOUT_VERSION:
        raise NewerVersionError(
            f"{path} is a state directory of version {found!r}, but this version of topb can only read up to "
            f"version {LAYOUT_VERSION}: use the version of topb that wrote it, or a newer one",
            reason="STATE_VERSION",
            path=path,
            found=found,
            known=LAYOUT_VERSION,
        )
    return int(found)
