"""One model trained by several processes, each on a share of every mini-batch, by DistributedDataParallel."""

from __future__ import annotations

import copy
import pickle
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException, spawn
from torch.nn.parallel import DistributedDataParallel

from topb_trainer.errors import DeviceError, TrainingDivergedError
from topb_trainer.runtime.device import resident

_IMAGES, _OUTCOME, _FAILURE, _DIVERGED = "images.npy", "outcome", "failure-", "diverged"


@dataclass(frozen=True)
class Team:
    """The processes that train one model, as one of them sees it."""

    rank: int = 0
    size: int = 1

    def share(self, index: Tensor) -> Tensor:
        """Returns this process's share of indices (B)."""
        return index[self.rank :: self.size]

    def weight(self, own: int, together: int) -> float:
        """Returns what to scale the mean loss of one's own samples with, so that averaged gradients are those
        of the mean over all samples."""
        return own * self.size / together

    def joined(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Returns what to call in place of `model`, so that all processes apply the same gradients."""
        if self.size == 1:
            return model
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(model, device_ids=[device])
        return DistributedDataParallel(model)

    def summed(self, totals: Tensor) -> Tensor:
        """Returns the sum over all processes."""
        if self.size > 1:
            dist.all_reduce(totals)
        return totals


ALONE = Team()

Train = Callable[[nn.Module, Tensor, torch.device, Team], None]
"""Trains a model, in place, on what the Tensor holds."""


@dataclass(frozen=True)
class _Job:
    work: bytes
    """The model and what trains it, pickled: passed as they are, torch would have the processes share the
    model's memory."""
    devices: list[torch.device]
    threads: int
    folder: Path
    """Holds the images, and then the outcome."""


def devices_from(device: torch.device, count: int) -> list[torch.device]:
    """Returns the devices of so many processes: CUDA devices from the given one on, or the CPU for all.

    Raises:
        DeviceError: there are not so many.
    """
    if device.type != "cuda":
        return [device] * count
    first = device.index or 0
    if first + count > torch.cuda.device_count():
        raise DeviceError(
            f"task.processes is {count} from {device} on, but torch sees {torch.cuda.device_count()} CUDA "
            "devices; ask for fewer processes, or start at a lower index",
            reason="DEVICE_UNAVAILABLE",
            device=str(device),
        )
    return [torch.device("cuda", first + i) for i in range(count)]


def train_together(
    train: Train, model: nn.Module, images: NDArray[np.uint8], device: torch.device, processes: int
) -> None:
    """Trains `model` in place, by so many processes that end with this call, one way or another.

    Args:
        train: can be pickled; every process calls it with a model of its own, the images and its device.
        model: on any device.
        images: uint8 (N, H, W, 3); the processes map one copy on disk.
        device: of the first process.
        processes: at least 2.

    Raises:
        DeviceError: there are not so many devices.
        TrainingDivergedError: as `train` raises it.
        RuntimeError: a process failed in another way, the first with this traceback.
    """
    devices = devices_from(device, processes)
    threads = max(1, torch.get_num_threads() // processes)
    work = pickle.dumps((train, copy.deepcopy(model).cpu()))
    with tempfile.TemporaryDirectory(prefix="topb-train-") as directory:
        folder = Path(directory)
        np.save(folder / _IMAGES, images)
        job = _Job(work, devices, threads, folder)
        try:
            spawn(_work, args=(job,), nprocs=processes)  # type: ignore[no-untyped-call]
        except ProcessException as error:
            # The others fail as well, for having lost it, and may be noticed before it.
            failures = sorted(folder.glob(f"{_FAILURE}*"), key=lambda path: path.stat().st_mtime_ns)
            if not failures:
                raise
            raise RuntimeError(failures[0].read_text(encoding="utf-8")) from error
        outcome = torch.load(folder / _OUTCOME, map_location="cpu", weights_only=True)
    if _DIVERGED in outcome:
        raise TrainingDivergedError(*outcome[_DIVERGED])
    model.load_state_dict(outcome)


def _work(rank: int, job: _Job) -> None:
    device, team = job.devices[rank], Team(rank, len(job.devices))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(job.threads)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{job.folder / 'rendezvous'}",
        rank=team.rank,
        world_size=team.size,
    )
    try:
        train, model = pickle.loads(job.work)
        model.to(device, memory_format=torch.channels_last)
        images = np.load(job.folder / _IMAGES, mmap_mode="c")
        try:
            train(model, resident(images, device), device, team)
            outcome = model.state_dict()
        except TrainingDivergedError as error:
            outcome = {_DIVERGED: (error.metadata["model"], int(error.metadata["epoch"]))}
        if rank == 0:
            torch.save(outcome, job.folder / _OUTCOME)
        dist.barrier()
    except Exception:
        told = f"process {rank} of {team.size} that train together failed:\n{traceback.format_exc()}"
        (job.folder / f"{_FAILURE}{rank}").write_text(told, encoding="utf-8")
        raise
    finally:
        dist.destroy_process_group()
