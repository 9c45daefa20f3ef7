from __future__ import annotations

import os
from pathlib import Path

import pytest

from topb_scorer.scoring.cores import usable_cores

pytestmark = pytest.mark.scorer

V2 = "0::/kubepods/pod1/scorer\n"
V1 = "7:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n0::/docker/1\n"


def v1(group: str, quota: int, period: int) -> dict[str, str]:
    values = {"quota": quota, "period": period}
    return {f"cpu/{group}cpu.cfs_{name}_us": f"{value}\n" for name, value in values.items()}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        pytest.param(V2, {"kubepods/pod1/scorer/cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param(V2, {"kubepods/pod1/scorer/cpu.max": "max 100000\n"}, 8, id="v2-no-limit"),
        pytest.param(V2, {"kubepods/pod1/scorer/cpu.max": "1600000 100000\n"}, 8, id="v2-above-the-cores"),
        pytest.param("0::/\n", {"cpu.max": "300000 100000\n"}, 3, id="v2-at-the-root"),
        pytest.param(V1, v1("docker/1/", 50_000, 25_000), 2, id="v1"),
        pytest.param(V1, v1("docker/1/", -1, 100_000), 8, id="v1-no-limit"),
        pytest.param(
            V2,
            {
                "kubepods/pod1/scorer/cpu.max": "max 100000\n",
                "kubepods/pod1/cpu.max": "400000 100000\n",
                "kubepods/cpu.max": "600000 100000\n",
            },
            4,
            id="least-of-the-parents",
        ),
        pytest.param(V2, {"cpu.max": "300000 100000\n"}, 3, id="v2-container-that-sees-the-hosts-paths"),
        pytest.param(V1, v1("", 300_000, 100_000), 3, id="v1-container-that-sees-the-hosts-paths"),
        pytest.param("0::/\n", {"cpu.max": "290000 100000"}, 2, id="part-of-a-core"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000"}, 1, id="less-than-a-core"),
        pytest.param("", {}, 8, id="no-cgroup"),
        pytest.param(V1, {}, 8, id="v1-no-files"),
        pytest.param(V2, {}, 8, id="v2-no-files"),
    ],
)
def test_a_cpu_limit_below_the_number_of_cores_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert usable_cores(mount=tmp_path / "mount", membership=tmp_path / "membership") == expected


def test_at_least_one_core_is_usable() -> None:
    assert usable_cores() >= 1
