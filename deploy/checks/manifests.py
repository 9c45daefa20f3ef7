"""Holds the Kubernetes manifests to yamllint, to the Kubernetes API schemas and to our own cross-checks."""

import functools
import json
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]

from checks import workloads
from checks.containers import read_all
from checks.kustomize import KUSTOMIZATION, RenderError, files_of, render, whole_kustomizations
from checks.project import Project
from checks.tools import findings_of

OLDEST_KUBERNETES = "1.30"
"""The first whose preStop hook may sleep without a feature gate; docs/operations.md names it too."""

YAMLLINT = """
extends: default
rules:
  document-start: disable
  indentation: {indent-sequences: true, spaces: 2}
  line-length: {max: 120}
  truthy: {level: error}
  comments: {level: error}
"""


def problems_of(root: Path) -> list[str]:
    """All that is wrong with the manifests of the repository at `root`."""
    directory = root / "deploy" / "kubernetes"
    if not any(directory.rglob(KUSTOMIZATION)):
        return [f"{directory.relative_to(root)}: no {KUSTOMIZATION} found"]
    problems = findings_of(
        "yamllint", ["-s", "-d", YAMLLINT, "-f", "parsable", str(directory)], directory=root
    )
    try:
        kustomizations = whole_kustomizations(directory)
        used = {path for kustomization in kustomizations for path in files_of(kustomization)}
        rendered = {
            str(kustomization.relative_to(root)): render(kustomization) for kustomization in kustomizations
        }
    except RenderError as error:
        return [*problems, str(error)]
    for path in sorted(directory.rglob("*.y*ml")):
        if path.resolve() not in used:
            problems.append(f"{path.relative_to(root)}: no kustomization uses it")
    invalid = [
        f"{where}: {problem}"
        for where, documents in rendered.items()
        for document in documents
        for problem in _schema_problems(json.dumps(document))
    ]
    problems.extend(invalid)
    if not invalid:
        # The cross-checks rely on the shape that the schemas promise.
        claims = {
            document["metadata"]["name"]: document["spec"]["accessModes"]
            for documents in rendered.values()
            for document in documents
            if document["kind"] == "PersistentVolumeClaim"
        }
        setting = workloads.Setting(Project.read(root), {file.name: file for file in read_all(root)}, claims)
        for where, documents in rendered.items():
            problems.extend(f"{where}: {problem}" for problem in workloads.problems_of(documents, setting))
    return list(dict.fromkeys(problems))


@functools.cache
def _schema_problems(serialised: str) -> tuple[str, ...]:
    """Of one document in JSON; overlays share most of theirs.

    Against the oldest Kubernetes that is supported and the newest that there are schemas of.
    """
    document = json.loads(serialised)
    name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
    problems = []
    for version in (OLDEST_KUBERNETES, kubernetes_validate.latest_version()):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(map(str, error.path))
            problems.append(f"{name}: not valid in Kubernetes {version}: {place}: {error.message}")
        except (KeyError, kubernetes_validate.SchemaNotFoundError) as error:
            problems.append(f"{name}: Kubernetes {version} knows no such kind: {error}")
    return tuple(problems)
