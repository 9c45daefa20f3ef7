"""The `topb` command, called in this process."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

from topb import commands


@dataclass(frozen=True)
class Outcome:
    """The output of a command, and its exit code."""

    exit_code: int
    out: str
    err: str

    @property
    def printed(self) -> str:
        """The standard output. Fails if the command failed."""
        assert self.exit_code == 0, self.err
        return self.out


def topb(*arguments: Any) -> Outcome:
    """Run the `topb` command with these arguments."""
    # The text streams wrap buffers because click writes completions as bytes.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        exit_code = commands.main([str(argument) for argument in arguments])
    return Outcome(exit_code, *(stream.buffer.getvalue().decode() for stream in (out, err)))
