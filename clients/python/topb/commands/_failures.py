"""How a subcommand says that it was called wrongly, or that something is not installed."""

from __future__ import annotations

_OWN_PACKAGES = ("topb", "topb_scorer", "topb_trainer")


class UsageError(Exception):
    """The command was called in a way that cannot work; the exit code is 2."""


class MissingPackageError(UsageError):
    """A package that the command needs is not installed."""

    def __init__(
        self, command: str, error: ModuleNotFoundError, *, needs: str | None, extra: str | None
    ) -> None:
        """Says which package is missing, and what to install.

        Args:
            command: as it is typed.
            error: of the import that failed.
            needs: what the command needs, in words.
            extra: the extra that brings it.
        """
        missing = error.name or str(error)
        if missing.partition(".")[0] in _OWN_PACKAGES:
            message = f"{command}: this installation of topb lacks {missing}; install topb again"
        elif extra is None:
            message = f"{command} needs {missing}: pip install {missing.partition('.')[0]}"
        else:
            message = f"{command} needs {needs}: pip install 'topb[{extra}]' (no module named {missing})"
        super().__init__(message)
