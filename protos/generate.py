"""Generate topb.v1 for Python from protos/. With --check, report whether the generated code is up to date."""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
GENERATED = PROTOS.parent / "clients" / "python"
SERVICES = {"selection.proto", "model.proto"}


def generate(out: Path) -> None:
    """Write `topb/v1/*_pb2.py`, their stubs, and the services' `_pb2_grpc` modules below `out`."""
    sources = sorted((PROTOS / "topb" / "v1").glob("*.proto"))
    services = [source for source in sources if source.name in SERVICES]
    # The plugins are installed beside this interpreter, whose directory may not be on PATH.
    scripts = Path(sysconfig.get_path("scripts"))
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}", *plugins]
    messages_out = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
    services_out = [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"]
    subprocess.run([*protoc, *messages_out, *map(str, sources)], check=True)
    subprocess.run([*protoc, *services_out, *map(str, services)], check=True)


def stale_files(fresh: Path, checked_in: Path) -> list[str]:
    """Return the names of generated modules that differ between two trees or exist in only one."""
    names = {
        str(path.relative_to(tree))
        for tree in (fresh, checked_in)
        for path in (tree / "topb" / "v1").glob("*_pb2*.py*")
        if path.suffix in {".py", ".pyi"}
    }
    return sorted(
        name
        for name in names
        if not ((fresh / name).is_file() and (checked_in / name).is_file())
        or not filecmp.cmp(fresh / name, checked_in / name, shallow=False)
    )


def main() -> int:
    """Run the command line. Return 1 if --check finds stale code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the generated code is stale"
    )
    if not parser.parse_args().check:
        generate(GENERATED)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = stale_files(Path(scratch), GENERATED)
    if stale:
        sys.stderr.write(f"generated code is stale: {', '.join(stale)}; run `make protos`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
