"""Break a copy of the deployment files, one thing at a time, and see the check name it."""

from __future__ import annotations

import shutil
from pathlib import Path

import check
import pytest

REPOSITORY = Path(__file__).parents[3]
DEPLOYMENT = "deploy/kubernetes/base/deployment.yaml"
JOB = "deploy/kubernetes/train/job.yaml"
OVERLAYS = "deploy/kubernetes/overlays"
SHARED = "deploy/kubernetes/components/shared-state/kustomization.yaml"
CLAIM = "deploy/kubernetes/storage-state/state.yaml"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what the check reads."""
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements-dev.lock"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}, so that the test breaks nothing"
    path.write_text(text.replace(old, new))


@needs_kubectl
def test_the_deployment_files_of_the_repository_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        # Schemas
        (DEPLOYMENT, "replicas: 1", "replica: 1", "'replica' was unexpected"),
        (DEPLOYMENT, "apiVersion: apps/v1", "apiVersion: apps/v2", "has no such kind"),
        # Only newer versions of Kubernetes know the field.
        (DEPLOYMENT, "preStop:", "stopSignal: SIGTERM\n            preStop:", "not valid in Kubernetes 1.30"),
        # Images and devices
        (
            DEPLOYMENT,
            "topb-scorer-cpu:0.1.0",
            "topb-scorer-cpu:0.0.9",
            "topb-scorer-cpu:0.0.9; expected one of",
        ),
        (DEPLOYMENT, "--grace-seconds=30", "--grace-seconds=30\n            - --device=cuda:0", "disagree"),
        (JOB, "- --json", "- --device=cuda", "disagree"),
        # Ports and threads
        (DEPLOYMENT, "--listen=0.0.0.0:50051", "--listen=0.0.0.0:50052", "'grpc': '50052'"),
        (DEPLOYMENT, "containerPort: 9090", "containerPort: 9091", "'metrics': '9091'"),
        (
            DEPLOYMENT,
            "port: 50051\n            periodSeconds: 20",
            "port: 1\n            periodSeconds: 20",
            "livenessProbe",
        ),
        (DEPLOYMENT, "--session-threads=2", "--session-threads=4", "differ from the 2 CPUs"),
        (DEPLOYMENT, "            - --decode-threads=2\n", "", "differ from the 2 CPUs"),
        # Draining
        (DEPLOYMENT, "PeriodSeconds: 45", "PeriodSeconds: 40", "is 40; expected more than 40"),
        (DEPLOYMENT, "      terminationGracePeriodSeconds: 45\n", "", "is 30; expected more than 40"),
        (DEPLOYMENT, "--grace-seconds=30", "--grace-seconds=60", "expected more than 70"),
        (DEPLOYMENT, "seconds: 5", "seconds: 0", "no preStop sleep"),
        # State and catalog
        (DEPLOYMENT, "--state=/state", "--state=/models", "'/models' is not on a volume"),
        (DEPLOYMENT, "            - --state=/state\n", "", "'' is not on a volume"),
        (DEPLOYMENT, "replicas: 1", "replicas: 2", "replicas: 2, but each pod has a state of its own"),
    ],
)
def test_a_broken_manifest_is_reported(
    repository: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, problem: str
) -> None:
    """With or without kubectl: all of these are in files that no overlay has patched."""
    replace(repository / file, old, new)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert problem in "\n".join(check.manifest_problems(repository))


@needs_kubectl
@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (
            f"{OVERLAYS}/autoscaled/kustomization.yaml",
            "../shared-state",
            "../../base",
            "set by an autoscaler",
        ),
        (f"{OVERLAYS}/gpu/kustomization.yaml", "--device=cuda:0", "--device=cpu", "disagree"),
        (f"{OVERLAYS}/gpu/kustomization.yaml", "scorer-gpu:", "scorer-cpu:", "disagree"),
        (f"{OVERLAYS}/gpu/kustomization.yaml", "nvidia.com~1gpu", "amd.com~1gpu", "disagree"),
        (SHARED, "name: TOPB_CATALOG_URL", "name: CATALOG_URL", "TOPB_CATALOG_URL is None"),
        (SHARED, "persistentVolumeClaim:\n            claimName: topb-state", "emptyDir: {}", "claim None"),
        (SHARED, "secretKeyRef:", "configMapKeyRef:", "does not come from a Secret"),
        (CLAIM, "ReadWriteMany", "ReadWriteOnce", "claim topb-state, which is not ReadWriteMany"),
    ],
)
def test_a_broken_overlay_is_reported(repository: Path, file: str, old: str, new: str, problem: str) -> None:
    replace(repository / file, old, new)
    assert problem in "\n".join(check.manifest_problems(repository))


@needs_kubectl
def test_a_kustomization_that_kubectl_refuses_is_reported(repository: Path) -> None:
    replace(repository / "deploy/kubernetes/base/kustomization.yaml", "service.yaml", "services.yaml")
    with pytest.raises(SystemExit, match=r"kubernetes/base: kubectl kustomize failed: .*services\.yaml"):
        check.render(repository)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("pyproject.toml", '"pillow>=11"', '"pillow>=99"', "pillow>=99; deploy/constraints.txt pins 13.0.0"),
        ("deploy/constraints.txt", "psycopg==", "psycopg2==", "constraints.txt pins None"),
        (
            "requirements-dev.lock",
            "pillow==",
            "pillow==1",
            "pillow is 113.0.0 in requirements-dev.lock",
        ),
    ],
)
def test_pins_that_disagree_are_reported(
    repository: Path, file: str, old: str, new: str, problem: str
) -> None:
    replace(repository / file, old, new)
    assert problem in "\n".join(check.pin_problems(repository))
