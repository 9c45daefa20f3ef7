"""Generate the blocking client in `topb/_sync` from the asynchronous one in `topb/_async`."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent / "topb"
SOURCE, GENERATED = PACKAGE / "_async", PACKAGE / "_sync"
BY_HAND = {"__init__.py", "transport.py"}
HEADER = "# Generated from topb/_async/{name} by clients/python/generate_sync.py. Edit that file instead.\n\n"

TOKENS = (
    (r"\basync (?=def|for|with)", ""),
    (r"\bawait ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\baclosing\b", "closing"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\btopb\._async\b", "topb._sync"),
    # The phrases of docstrings that differ.
    (r"one server, for use in one event loop\.", "one server. Threads may share it."),
    (r"\ban asynchronous context manager\b", "a context manager"),
    (r"\bon the event loop(, which waits while [^.]*)?", "on the calling thread"),
)


def generate() -> dict[Path, str]:
    """Return the text of every generated module by its path."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(SOURCE.glob("*.py"))}
    sources = {name: text for name, text in texts.items() if name not in BY_HAND}
    for pattern, _ in TOKENS:
        if not any(re.search(pattern, text) for text in sources.values()):
            raise SystemExit(f"no asynchronous module contains {pattern!r}; correct or delete this rule")
    return {GENERATED / name: blocking(name, text) for name, text in sources.items()}


def blocking(name: str, text: str) -> str:
    """Return the blocking module for the text of an asynchronous one, sorted and formatted by ruff."""
    for pattern, replacement in TOKENS:
        text = re.sub(pattern, replacement, text)
    text = HEADER.format(name=name) + text
    stdin = ["--stdin-filename", str(GENERATED / name), "-"]
    for command in (["check", "--select=I", "--fix-only", "--quiet"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, *stdin]
        text = subprocess.run(ruff, input=text, capture_output=True, encoding="utf-8", check=True).stdout
    return text


def main() -> int:
    """Run the command line. Return 1 if --check finds stale code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the code is stale")
    options = parser.parse_args()
    modules = generate()
    orphans = {path for path in GENERATED.glob("*.py") if path.name not in BY_HAND} - modules.keys()
    stale = [path for path, text in modules.items() if not path.exists() or path.read_text("utf-8") != text]
    if options.check and (stale or orphans):
        names = ", ".join(sorted(path.name for path in {*stale, *orphans}))
        sys.stderr.write(f"topb/_sync is stale ({names}); run `make sync-client`\n")
        return 1
    for path in stale:
        path.write_text(modules[path], encoding="utf-8")
    for path in orphans:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
