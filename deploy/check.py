"""Check what no linter knows about the container files and the Kubernetes manifests.

hadolint, yamllint and a schema validator know the formats. This script knows topb: how long a server drains,
which servers may share a state, and which versions belong together. It prints one line per problem and exits
with 1 if there is any. Without kubectl it checks the manifests as written, not as overlays patch them.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Document = dict[str, Any]

OLDEST_KUBERNETES = "1.30"
"""The first version in which a preStop hook can sleep without a feature gate, as docs/operations.md says."""
CANCEL_SECONDS = 5
"""How long the server waits, after --grace-seconds, for calls to end."""
CATALOG_VARIABLE = "TOPB_CATALOG_URL"
GPU = "nvidia.com/gpu"
IMAGES_PYTHON = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}
DEVELOPERS_EXTRAS = {"demo", "report", "test", "dev"}
"""Extras that no image installs. deploy/constraints.txt need not pin their dependencies."""


def render(root: Path) -> dict[str, list[Document]]:
    """Return the documents of each kustomization. Without kubectl, return those of each file as written."""
    directory = root / "deploy" / "kubernetes"
    if shutil.which("kubectl") is None:
        files = [path for path in sorted(directory.rglob("*.yaml")) if path.name != "kustomization.yaml"]
        return {str(path.relative_to(root)): _load(path.read_text()) for path in files}
    rendered = {}
    for path in sorted(directory.rglob("kustomization.yaml")):
        if yaml.safe_load(path.read_text())["kind"] == "Component":
            continue  # Only an overlay can render it.
        command = ["kubectl", "kustomize", str(path.parent)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        where = str(path.parent.relative_to(root))
        if run.returncode != 0:
            raise SystemExit(f"{where}: kubectl kustomize failed: {run.stderr.strip()}")
        rendered[where] = _load(run.stdout)
    return rendered


def _load(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def manifest_problems(root: Path) -> Iterator[str]:
    """Yield a message for each problem of the manifests of the repository at `root`."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    files = (root / "deploy").glob("*.Dockerfile")
    images = {f"{project['name']}-{file.stem}:{project['version']}" for file in files}
    rendered = render(root)
    claims = {
        document["metadata"]["name"]: document["spec"]["accessModes"]
        for documents in rendered.values()
        for document in documents
        if document["kind"] == "PersistentVolumeClaim"
    }
    for where, documents in rendered.items():
        for document in documents:
            name = f"{where}: {document['kind']}/{document['metadata']['name']}"
            problems = _schema_problems(json.dumps(document))
            if not problems and document["kind"] in ("Deployment", "Job"):
                problems = list(_workload_problems(document, images, claims))
            yield from (f"{name}: {problem}" for problem in problems)


@functools.cache
def _schema_problems(serialised: str) -> list[str]:
    """Return the errors that the schemas find in a document, given as JSON.

    Results are cached, because most overlays share most documents.
    """
    problems = []
    for version in (OLDEST_KUBERNETES, kubernetes_validate.latest_version()):
        try:
            kubernetes_validate.validate(json.loads(serialised), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(map(str, error.path))
            problems.append(f"not valid in Kubernetes {version}: {place}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            problems.append(f"Kubernetes {version} has no such kind: {error}")
    return problems


def _workload_problems(workload: Document, images: set[str], claims: dict[str, list[str]]) -> Iterator[str]:
    pod = workload["spec"]["template"]["spec"]
    for container in pod["containers"]:
        options = options_of(container)
        if container["image"] not in images:
            yield f"the image is {container['image']}; expected one of {', '.join(sorted(images))}"
        on_gpu = options.device.startswith("cuda")
        image_has_cuda = "-cpu:" not in container["image"]
        granted = GPU in container.get("resources", {}).get("limits", {})
        if on_gpu != granted or on_gpu > image_has_cuda:
            yield f"--device {options.device}, image {container['image']} and the limit of {GPU} disagree"
        if options.command == "serve":
            yield from _port_problems(container, options)
            yield from _drain_problems(container, options, pod)
            yield from _state_problems(container, options, workload, claims)


def options_of(container: Document) -> argparse.Namespace:
    """Return the options of `topb` that the checks compare with the rest of a manifest."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command")
    parser.add_argument("--device", default="cpu")
    for name in ("--listen", "--metrics-listen", "--state", "--session-threads", "--decode-threads"):
        parser.add_argument(name, default="")
    parser.add_argument("--grace-seconds", type=float, default=30.0)
    return parser.parse_known_args(container["args"])[0]


def _port_problems(container: Document, options: argparse.Namespace) -> Iterator[str]:
    ports = {port.get("name"): str(port["containerPort"]) for port in container.get("ports", [])}
    addresses = {"grpc": options.listen, "metrics": options.metrics_listen}
    listens = {name: address.rpartition(":")[2] for name, address in addresses.items() if address}
    if ports != listens:
        yield f"the server listens on {listens}, but its containerPorts are {ports}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if str(container.get(probe, {}).get("grpc", {}).get("port")) != listens["grpc"]:
            yield f"{probe} does not probe port {listens['grpc']}, on which the server listens"
    asked = container.get("resources", {}).get("requests", {}).get("cpu")
    if {options.session_threads, options.decode_threads} != {asked}:
        yield f"--session-threads and --decode-threads differ from the {asked} CPUs that it requests"


def _drain_problems(container: Document, options: argparse.Namespace, pod: Document) -> Iterator[str]:
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needed = sleep + options.grace_seconds + CANCEL_SECONDS
    granted = pod.get("terminationGracePeriodSeconds", 30)
    if sleep < 1:
        yield "no preStop sleep: calls would still reach a server that has begun to drain; add one"
    if granted <= needed:
        yield (
            f"terminationGracePeriodSeconds is {granted}; expected more than {needed:g}: the preStop sleep, "
            f"--grace-seconds and {CANCEL_SECONDS} for the calls that are ended then"
        )


def _state_problems(
    container: Document, options: argparse.Namespace, workload: Document, claims: dict[str, list[str]]
) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in workload["spec"]["template"]["spec"].get("volumes", [])}
    mounts = {
        mount["mountPath"]: mount for mount in container.get("volumeMounts", []) if not mount.get("readOnly")
    }
    if options.state not in mounts:
        yield f"--state {options.state!r} is not on a volume that the pod can write to"
        return
    claim = volumes[mounts[options.state]["name"]].get("persistentVolumeClaim", {}).get("claimName")
    catalog = next((item for item in container.get("env", []) if item["name"] == CATALOG_VARIABLE), None)
    if (claim is None) != (catalog is None):
        yield f"its state is on claim {claim}, and its {CATALOG_VARIABLE} is {catalog}; share both or neither"
    if catalog is not None and "secretKeyRef" not in catalog.get("valueFrom", {}):
        yield f"{CATALOG_VARIABLE} holds a password, but does not come from a Secret"
    replicas = workload["spec"].get("replicas", "set by an autoscaler")
    if claim is None and replicas != 1:
        yield f"replicas: {replicas}, but each pod has a state of its own; several replicas must share one"
    if "ReadWriteMany" not in claims.get(claim, ["ReadWriteMany"]):
        yield f"pods share claim {claim}, which is not ReadWriteMany"


def pin_problems(root: Path) -> Iterator[str]:
    """Yield a message for each disagreement of pyproject.toml, deploy/constraints.txt and
    requirements-dev.lock."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {*project["dependencies"]}.union(*(extras[name] for name in extras.keys() - DEVELOPERS_EXTRAS))
    pins = _pins(root / "deploy" / "constraints.txt")
    for requirement in sorted(map(Requirement, asked), key=str):
        if requirement.name == project["name"]:
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None or pin not in requirement.specifier:
            yield f"pyproject.toml asks for {requirement}; deploy/constraints.txt pins {pin}"
    for name, version in _pins(root / "requirements-dev.lock").items():
        if pins.get(name, version) != version:
            yield f"{name} is {version} in requirements-dev.lock, but {pins[name]} in deploy/constraints.txt"


def _pins(path: Path) -> dict[str, str]:
    """Return the pinned versions by canonical name, for the platform of the images."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    requirements = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(IMAGES_PYTHON)
    }


def main() -> int:
    """Print the problems and return the exit code."""
    root = Path(__file__).parents[1]
    if shutil.which("kubectl") is None:
        sys.stderr.write("deploy/check.py: kubectl is not installed, so the overlays are not checked\n")
    problems = [*pin_problems(root), *manifest_problems(root)]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
