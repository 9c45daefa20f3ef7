"""The error of a command whose package is not installed."""

from __future__ import annotations

import click


class MissingPackageError(click.ClickException):
    """A package that the command needs is not installed."""

    exit_code = 2

    def __init__(self, command: str, error: ModuleNotFoundError, *, extra: str | None) -> None:
        """Create the error. Its message names the missing package and the command that installs it.

        Args:
            command: The command as typed.
            error: The error of the import.
            extra: The extra that the command needs.
        """
        missing = error.name or str(error)
        package = missing.partition(".")[0]
        if package in ("topb", "topb_scorer", "topb_trainer"):
            message = f"{command}: this installation of topb lacks {missing}; reinstall topb"
        elif extra is None:
            message = f"{command} needs {missing}: pip install {package}"
        else:
            message = f"{command} needs the {extra}: pip install 'topb[{extra}]' (no module named {missing})"
        super().__init__(message)
