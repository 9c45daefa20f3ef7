"""Store one file for a selection, in a directory for files of one kind."""

from __future__ import annotations

from pathlib import Path

from topb_scorer.durable import is_unpublished


class SelectionFiles:
    """A directory of files, each named by the id of its selection."""

    def __init__(self, directory: Path, suffix: str) -> None:
        self._directory = directory
        self._suffix = suffix

    def path(self, selection: str) -> Path:
        """Return the path of a selection's file, whether or not it exists."""
        return self._directory / f"{selection}{self._suffix}"

    def size(self, selection: str) -> int:
        """Return the size of a selection's file in bytes, or 0 if there is none."""
        try:
            return self.path(selection).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, selection: str) -> None:
        """Remove a selection's file, if there is one."""
        self.path(selection).unlink(missing_ok=True)

    def written_before(self, moment: float) -> list[str]:
        """Return the ids of selections whose files were written before `moment`, in epoch seconds."""
        files = (path for path in self._directory.glob(f"*{self._suffix}") if not is_unpublished(path))
        return sorted(path.stem for path in files if path.stat().st_mtime < moment)
