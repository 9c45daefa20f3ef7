"""The message for a command whose package is not installed."""

from __future__ import annotations

import click

_OWN_PACKAGES = ("topb", "topb_scorer", "topb_trainer")


class MissingPackageError(click.ClickException):
    """A package that the command needs is not installed."""

    exit_code = 2

    def __init__(
        self, command: str, error: ModuleNotFoundError, *, needs: str | None, extra: str | None
    ) -> None:
        """Name the missing package and what to install.

        Args:
            command: the command as typed.
            error: the import that failed.
            needs: what the extra provides, in words.
            extra: the extra that provides it.
        """
        missing = error.name or str(error)
        if missing.partition(".")[0] in _OWN_PACKAGES:
            message = f"{command}: this installation of topb lacks {missing}; reinstall topb"
        elif extra is None:
            message = f"{command} needs {missing}: pip install {missing.partition('.')[0]}"
        else:
            message = f"{command} needs {needs}: pip install 'topb[{extra}]' (no module named {missing})"
        super().__init__(message)
