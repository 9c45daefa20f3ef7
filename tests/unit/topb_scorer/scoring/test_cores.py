from __future__ import annotations

import os
from pathlib import Path

import pytest

from topb_scorer.scoring.cores import usable_cores

pytestmark = pytest.mark.scorer

V2 = "0::/kubepods/pod1/scorer\n"
V1 = "7:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n0::/docker/1\n"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def cores(folder: Path, membership: str, files: dict[str, str]) -> int:
    """With these files below the mount of cgroups."""
    (folder / "membership").write_text(membership)
    for name, content in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return usable_cores(mount=folder / "mount", membership=folder / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {"kubepods/pod1/scorer/cpu.max": "200000 100000\n"}, 2),
        (V2, {"kubepods/pod1/scorer/cpu.max": "max 100000\n"}, 8),
        (V2, {"kubepods/pod1/scorer/cpu.max": "1600000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        (V1, {"cpu/docker/1/cpu.cfs_quota_us": "50000\n", "cpu/docker/1/cpu.cfs_period_us": "25000\n"}, 2),
        (V1, {"cpu/docker/1/cpu.cfs_quota_us": "-1\n", "cpu/docker/1/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_cpu_limit_counts_where_it_is_below_the_cores(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    assert cores(tmp_path, membership, files) == expected


def test_the_least_of_the_limits_above_counts(tmp_path: Path) -> None:
    files = {
        "kubepods/pod1/scorer/cpu.max": "max 100000\n",
        "kubepods/pod1/cpu.max": "400000 100000\n",
        "kubepods/cpu.max": "600000 100000\n",
    }
    assert cores(tmp_path, V2, files) == 4


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        (V2, {"cpu.max": "300000 100000\n"}),
        (V1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}),
    ],
)
def test_in_a_container_that_sees_the_hosts_paths_the_mount_is_its_cgroup(
    tmp_path: Path, membership: str, files: dict[str, str]
) -> None:
    assert cores(tmp_path, membership, files) == 3


@pytest.mark.parametrize(("quota", "expected"), [(290_000, 2), (100_000, 1), (50_000, 1)])
def test_a_part_of_a_core_does_not_count_but_one_core_always_does(
    tmp_path: Path, quota: int, expected: int
) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000\n"}) == expected


@pytest.mark.parametrize("membership", ["", V1, V2])
def test_without_limits_all_cores_count(tmp_path: Path, membership: str) -> None:
    assert cores(tmp_path, membership, {}) == 8


def test_this_process_may_use_some_core() -> None:
    assert usable_cores() >= 1
