"""Compare k-center greedy with other implementations: running time, picks and scaling.

    python tests/benchmarks/k_center.py --features features.npy --labelled labelled.npy --json k_center.json

features.npy holds float32 (N, D), labelled.npy the indices of its labelled rows. Without them, only synthetic
data is used. Each measurement runs in its own process, and each repeat runs every contender once. Contenders
that are not installed are left out: pip install torch-quickfps scikit-activeml lightly-mundig. `--only`
selects the parts to run: real, scaling, memory. Results of the other parts stay in the JSON file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measuring import argument_parser, in_a_process, machine, median_ratio, peak_memory, versions, write_json

PACKAGES = ("faiss-cpu", "torch", "torch-quickfps", "scikit-activeml", "scikit-learn", "lightly-mundig")


def main() -> None:
    arguments = parsed_arguments()
    if arguments.contender:
        print(json.dumps(measure(json.loads(arguments.contender))))
        return
    result: dict[str, object] = {"machine": machine() | {"also": versions(PACKAGES)}}
    if "real" in arguments.only and arguments.features:
        result["real"] = real(arguments)
    if "scaling" in arguments.only:
        result["scaling"] = scaling(arguments)
    if "memory" in arguments.only:
        result["memory"] = memory(arguments)
    known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    write_json(arguments.json, known | result)


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--budget", type=int, default=2500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow-repeats", type=int, default=1, help="repeats of contenders that take minutes")
    parser.add_argument("--limit", type=float, default=400, help="seconds after which a contender is stopped")
    parser.add_argument("--only", nargs="+", default=["real", "scaling", "memory"])
    parser.add_argument("--json", type=Path, default=Path("k_center.json"))
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


def real(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure all contenders on the same features, starting from the labelled rows and from one row."""
    features = {"features": str(arguments.features), "budget": arguments.budget}
    from_labelled = features | {"labelled": str(arguments.labelled)}
    quick, slow = ["topb", "numpy_gemv"], ["skactiveml", "mundig"]
    return {
        "from_labelled": compare(arguments, from_labelled, quick, slow),
        "from_one": compare(arguments, features, quick, ["quickfps", "mundig"]),
    }


def compare(
    arguments: argparse.Namespace, task: dict[str, object], quick: list[str], slow: list[str]
) -> object:
    rows: dict[str, list[dict[str, object]]] = {}
    for repeat in range(arguments.repeats):
        for name in quick + (slow if repeat < arguments.slow_repeats else []):
            rows.setdefault(name, []).append(measured(arguments, task | {"name": name}))
    if "failed" in rows["topb"][0]:
        sys.exit(f"topb failed, so there is nothing to compare: {rows['topb'][0]['failed']}")
    exact = measured(arguments, task | {"name": "float64"})["picks"]
    ours = times(rows["topb"])
    table = {}
    for name, runs in rows.items():
        done = [run for run in runs if "seconds" in run]
        if not done:
            table[name] = {"failed": runs[0]["failed"]}
            continue
        theirs, first = times(done), done[0]
        table[name] = {
            **{part: statistics.median(values) for part, values in theirs.items()},
            "runs": [{"start": run["start"], "seconds": run["seconds"]} for run in done],
            "same_picks": float(np.mean(np.array(first["picks"]) == np.array(exact))),
            "same_set": len(set(first["picks"]) & set(exact)) / len(exact),
            "last_radius": first.get("last_radius"),
            "distances": first.get("distances"),
            "times_as_long_as_topb": {
                part: median_ratio(theirs[part], ours[part]) for part in ("greedy", "seconds")
            },
        }
    return table


def times(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    """Return the seconds of the start, of the greedy part, and of both, by run."""
    return {
        "start": [run["start"] for run in runs],
        "greedy": [run["seconds"] - run["start"] for run in runs],
        "seconds": [run["seconds"] for run in runs],
    }


def scaling(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure topb while changing one size at a time, on data that suits bounds well and badly."""
    base = {"kind": "clustered", "size": 50_000, "width": 128, "known": 5000, "budget": 2500}
    tasks = [base | {"kind": kind} for kind in ("clustered", "gaussian", "uniform", "sphere")]
    tasks += [base | {"kind": kind, "known": 0} for kind in ("clustered", "gaussian", "sphere")]
    tasks += [base | {"size": size} for size in (100_000, 300_000)]
    tasks += [base | {"size": 1_000_000, "known": known, "budget": 10_000} for known in (0, 10_000)]
    tasks += [base | {"width": width} for width in (8, 32, 512)]
    tasks += [base | {"budget": budget} for budget in (500, 10_000)]
    tasks += [base | {"known": known} for known in (1, 500, 20_000)]
    rows = []
    for task in tasks:
        row = dict(task)
        repeats = 1 if task["size"] >= 300_000 else arguments.repeats
        ours = [measured(arguments, task | {"name": "topb"}) for _ in range(repeats)]
        row["topb"] = statistics.median(run["seconds"] for run in ours)
        row["share_of_distances"] = ours[0]["distances"] / (task["size"] * (task["known"] + task["budget"]))
        if task["size"] >= 300_000:
            # Each pick of the loop takes equally long, so timing a hundred suffices.
            loop = measured(arguments, task | {"name": "numpy_gemv", "known": 0, "budget": 100})
            row["numpy_gemv_picks_alone_extrapolated"] = loop["seconds"] / 100 * task["budget"]
        else:
            loop = measured(arguments, task | {"name": "numpy_gemv"})
            row["numpy_gemv"] = loop["seconds"]
            row["same_picks"] = float(np.mean(np.array(loop["picks"]) == np.array(ours[0]["picks"])))
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def memory(arguments: argparse.Namespace) -> list[dict[str, object]]:
    task = {
        "name": "topb",
        "kind": "clustered",
        "size": 1_000_000,
        "width": 512,
        "known": 0,
        "budget": 10_000,
    }
    rows = []
    for known in (0, 10_000):
        run = measured(arguments, task | {"known": known, "limit": 1500})
        features = (task["size"] + known) * task["width"] * 4
        kept = {name: value for name, value in run.items() if name != "picks"}
        rows.append(task | kept | {"known": known, "features": features})
        rows[-1]["ratio"] = (run["peak"] - run["before"]) / features if "peak" in run else None
    return rows


def measured(arguments: argparse.Namespace, task: dict[str, object]) -> dict[str, object]:
    """Return the result of `measure` in a new process, or a dict with the key `failed`."""
    packages = {"quickfps": "torch_quickfps", "skactiveml": "skactiveml", "mundig": "lightly_mundig"}
    package = packages.get(task["name"])
    if package and importlib.util.find_spec(package) is None:
        return {"failed": "not installed"}
    limit = task.get("limit", arguments.limit)
    try:
        result = in_a_process("--contender", json.dumps(task), limit=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": error.stderr.strip().splitlines()[-1]}
    shown = {name: value for name, value in result.items() if name != "picks"}
    print({k: v for k, v in task.items() if k != "features"}, shown, file=sys.stderr, flush=True)
    return result


def measure(task: dict[str, object]) -> dict[str, object]:
    before = peak_memory()
    pool, labelled = load(task)
    # Starting threads and loading libraries must not count for any contender.
    contenders[task["name"]](pool[:600], labelled[:300], 5)
    held = time.perf_counter()
    result = contenders[task["name"]](pool, labelled, task["budget"])
    seconds = time.perf_counter() - held
    return {"start": 0.0, "seconds": seconds, "before": before, "peak": peak_memory()} | result


def load(task: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
    if "features" in task:
        features = np.load(task["features"])
        if "labelled" not in task:
            return features, features[:0]
        rows = np.load(task["labelled"])
        kept = np.ones(len(features), bool)
        kept[rows] = False
        return features[kept], features[rows]
    features = made(task["kind"], task["size"] + task["known"], task["width"])
    return features[task["known"] :], features[: task["known"]]


def made(kind: str, size: int, width: int) -> np.ndarray:
    """Return float32 (size, width). It is filled block by block, so the array itself is the peak of
    memory."""
    random = np.random.default_rng(0)
    middles = random.standard_normal((100, width)).astype(np.float32)
    rows = np.empty((size, width), np.float32)
    for first in range(0, size, 10_000):
        block = rows[first : first + 10_000]
        if kind == "uniform":
            random.random(out=block, dtype=np.float32)
            continue
        random.standard_normal(out=block, dtype=np.float32)
        if kind == "clustered":
            block *= 0.3
            block += middles[random.integers(0, 100, len(block))]
        if kind == "sphere":
            # All on one sphere: nearly equal distances in high dimensions are the hardest to bound.
            block /= np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def topb(pool: np.ndarray, labelled: np.ndarray, budget: int) -> dict[str, object]:
    from topb_scorer.geometry import k_center
    from topb_scorer.geometry.euclidean import Frame

    start, products, bounds = [0.0], [0], k_center.upper_bounds
    lower_bounds = Frame.lower_bounds

    def timed(*arguments, **named):
        begun = time.perf_counter()
        found = bounds(*arguments, **named)
        start[0] = time.perf_counter() - begun
        return found

    def counted(frame, candidates, centres):
        products[0] += len(candidates.rows) * len(centres.rows)
        return lower_bounds(frame, candidates, centres)

    k_center.upper_bounds, Frame.lower_bounds = timed, counted
    try:
        result = k_center.k_center_greedy(pool, labelled, budget)
    finally:
        k_center.upper_bounds, Frame.lower_bounds = bounds, lower_bounds
    return {
        "picks": result.indices.tolist(),
        "start": start[0],
        "last_radius": float(result.radii[-1]),
        "distances": products[0],
    }


def first_pick(pool: np.ndarray) -> int:
    """Return the row from which k_center_greedy starts if nothing is labelled."""
    return int(np.random.default_rng(0).integers(len(pool)))


def numpy_gemv(pool: np.ndarray, labelled: np.ndarray, budget: int) -> dict[str, object]:
    """Run the loop that users usually write: a blockwise start, then one matrix-vector product for each
    pick."""
    begun = time.perf_counter()
    norms = np.einsum("ij,ij->i", pool, pool)
    nearest = np.full(len(pool), np.inf, pool.dtype)
    for first in range(0, len(labelled), 512):
        block = labelled[first : first + 512]
        for row in range(0, len(pool), 8192):
            products = pool[row : row + 8192] @ block.T
            products *= -2
            products += np.einsum("ij,ij->i", block, block)
            found = products.min(axis=1) + norms[row : row + 8192]
            nearest[row : row + 8192] = np.minimum(nearest[row : row + 8192], found)
    start = time.perf_counter() - begun
    picks = []
    for _ in range(budget):
        pick = first_pick(pool) if len(labelled) == 0 and not picks else int(nearest.argmax())
        picks.append(pick)
        distances = norms - 2 * (pool @ pool[pick])
        distances += norms[pick]
        np.minimum(nearest, distances, out=nearest)
        nearest[pick] = -np.inf
    return {"picks": picks, "start": start, "distances": len(pool) * (len(labelled) + budget)}


def float64(pool: np.ndarray, labelled: np.ndarray, budget: int) -> dict[str, object]:
    """Run the same loop in float64 on centred features, as the reference."""
    middle = pool.mean(axis=0, dtype=np.float64)
    return numpy_gemv(pool - middle, labelled - middle, budget)


def quickfps(pool: np.ndarray, labelled: np.ndarray, budget: int) -> dict[str, object]:
    import torch
    import torch_quickfps

    rows = torch.from_numpy(pool)[None]
    return {"picks": torch_quickfps.sample_idx(rows, budget, start_idx=first_pick(pool))[0].tolist()}


def skactiveml(pool: np.ndarray, labelled: np.ndarray, budget: int) -> dict[str, object]:
    from skactiveml.pool import k_greedy_center

    rows = np.concatenate([labelled, pool])
    classes = np.full(len(rows), np.nan)
    classes[: len(labelled)] = 0
    picks, _ = k_greedy_center(rows, classes, batch_size=budget, random_state=0)
    return {"picks": (picks - len(labelled)).tolist()}


def mundig(pool: np.ndarray, labelled: np.ndarray, budget: int) -> dict[str, object]:
    import lightly_mundig

    begun = time.perf_counter()
    rows = np.concatenate([labelled, pool]).tolist()
    selection = lightly_mundig.Selection()
    selection.add_diversifying_strategy(rows, 1.0)
    start = time.perf_counter() - begun
    known = list(range(len(labelled))) or [first_pick(pool)]
    picks = selection.run_selection(known, len(rows), len(labelled) + budget)
    return {"picks": [pick - len(labelled) for pick in picks[len(labelled) :]], "start": start}


contenders = {f.__name__: f for f in (topb, numpy_gemv, float64, quickfps, skactiveml, mundig)}


if __name__ == "__main__":
    main()
