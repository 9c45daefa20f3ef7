"""Send the images of a local folder to a server that cannot read them itself.

python examples/stream_a_folder.py 127.0.0.1:50051 photos/ 100
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import topb


def images_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield an id and the encoded image for each file, in an order that stays the same.

    If the server goes away, the client continues to send the pool to the next server. If you repeat the call
    under the same request id, the rows must come in the same order again, so the files are sorted.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}:
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def show(progress: topb.Progress) -> None:
    print(f"scored {progress.read} images in {progress.elapsed_seconds:.0f} s", file=sys.stderr)


def main(address: str, folder: str, budget: int) -> None:
    with topb.Client(address) as client:
        result = client.select_batch(images_below(Path(folder)), budget, progress=show)
    print("\n".join(result.ids))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
