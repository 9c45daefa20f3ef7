"""Send the images of a local folder to a server that cannot read them itself.

python examples/stream_a_folder.py 127.0.0.1:50051 photos/ 100
"""

import sys

import topb


def show(progress: topb.Progress) -> None:
    print(
        f"scored {progress.read} of {progress.total} images in {progress.elapsed_seconds:.0f} s",
        file=sys.stderr,
    )


def main(address: str, folder: str, budget: int) -> None:
    with topb.Client(address) as client:
        result = client.select_batch(topb.images_in(folder), budget, progress=show)
    print("\n".join(result.ids))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
