"""Train one model with several processes, each on its share of every mini-batch.

Gradients are averaged by torch's DistributedDataParallel: over NCCL on GPUs, over gloo on the CPU.
"""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException, spawn
from torch.nn.parallel import DistributedDataParallel

from topb_trainer.errors import DeviceError, TrainingDivergedError
from topb_trainer.runtime.device import resident
from topb_trainer.runtime.scratch import scratch_directory

_IMAGES, _OUTCOME, _FAILURE, _DIVERGED = "images.npy", "outcome", "failure-", "diverged"


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model, as seen by one of them."""

    rank: int = 0
    size: int = 1

    def share(self, index: Tensor) -> Tensor:
        """Return this process's part of the indices (B) of a mini-batch."""
        return index[self.rank :: self.size]

    def loss_weight(self, own: int, total: int) -> float:
        """Return the factor by which this process multiplies its mean loss.

        With this factor, the gradient averaged over processes is the gradient of the mean over all samples,
        even if the shares differ in size.

        Args:
            own: number of samples in this process's share of the mini-batch.
            total: number of samples in the mini-batch.
        """
        return own * self.size / total

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return the module to call in place of `model`. It gives all processes the same gradients."""
        if self.size == 1:
            return model
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(model, device_ids=[device])
        return DistributedDataParallel(model)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


SINGLE_PROCESS = ProcessGroup()

Train = Callable[[nn.Module, Tensor, torch.device, ProcessGroup], None]
"""A function that trains a model in place on uint8 images (N, H, W, 3)."""


@dataclass(frozen=True)
class _Job:
    work: bytes
    """The training function and the model, pickled. Otherwise torch would place the model's weights in memory
    that all processes share."""
    devices: list[torch.device]
    threads: int
    folder: Path
    """Directory that holds the images, and later the outcome."""


def devices_from(device: torch.device, count: int) -> list[torch.device]:
    """Return one device for each of `count` processes: consecutive CUDA devices, or always the CPU.

    Raises:
        DeviceError: there are too few CUDA devices.
    """
    if device.type != "cuda":
        return [device] * count
    first = device.index or 0
    if first + count > torch.cuda.device_count():
        raise DeviceError(
            f"task.processes is {count}, starting at {device}, but torch sees {torch.cuda.device_count()} "
            "CUDA devices; use fewer processes, or start at a lower index",
            reason="DEVICE_UNAVAILABLE",
            device=str(device),
        )
    return [torch.device("cuda", first + i) for i in range(count)]


def train_in_parallel(
    train: Train, model: nn.Module, images: NDArray[Any], device: torch.device, processes: int
) -> None:
    """Train `model` in place with several processes. All of them end before this function returns.

    Args:
        train: a picklable function. Every process calls it with a copy of the model, the images and its
            device.
        model: the model, on any device.
        images: uint8 (N, H, W, 3), or features, float32 (N, D). All processes map the same copy on disk.
        device: the device of the first process.
        processes: number of processes, at least 2.

    Raises:
        DeviceError: there are too few devices.
        TrainingDivergedError: `train` raised it.
        RuntimeError: a process failed in another way; the message holds the traceback of the first failure.
    """
    devices = devices_from(device, processes)
    threads = max(1, torch.get_num_threads() // processes)
    work = pickle.dumps((train, copy.deepcopy(model).cpu()))
    with scratch_directory("topb-train-") as folder:
        np.save(folder / _IMAGES, images)
        job = _Job(work, devices, threads, folder)
        try:
            spawn(_run_process, args=(job,), nprocs=processes)  # type: ignore[no-untyped-call]
        except ProcessException as error:
            # If one process fails, the others fail as well, and torch may report any of them first.
            failures = sorted(folder.glob(f"{_FAILURE}*"), key=lambda path: path.stat().st_mtime_ns)
            if not failures:
                raise
            raise RuntimeError(failures[0].read_text(encoding="utf-8")) from error
        outcome = torch.load(folder / _OUTCOME, map_location="cpu", weights_only=True)
    if _DIVERGED in outcome:
        raise TrainingDivergedError(*outcome[_DIVERGED])
    model.load_state_dict(outcome)


def _run_process(rank: int, job: _Job) -> None:
    device, group = job.devices[rank], ProcessGroup(rank, len(job.devices))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(job.threads)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{job.folder / 'rendezvous'}",
        rank=group.rank,
        world_size=group.size,
    )
    try:
        train, model = pickle.loads(job.work)
        model.to(device, memory_format=torch.channels_last)
        # A shared mapping: Linux refuses a private writable one that is larger than the memory.
        images = np.load(job.folder / _IMAGES, mmap_mode="r+")
        try:
            train(model, resident(images, device), device, group)
            outcome = model.state_dict()
        except TrainingDivergedError as error:
            outcome = {_DIVERGED: (error.metadata["model"], int(error.metadata["epoch"]))}
        if rank == 0:
            torch.save(outcome, job.folder / _OUTCOME)
        dist.barrier()
    except Exception:
        failure = f"process {rank} of {group.size} that train together failed:\n{traceback.format_exc()}"
        (job.folder / f"{_FAILURE}{rank}").write_text(failure, encoding="utf-8")
        raise
    finally:
        dist.destroy_process_group()
