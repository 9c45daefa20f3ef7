"""Renders a kustomization, of the small part of kustomize that these manifests use.

`resources` are files or other kustomizations; `components` are kustomizations of kind Component, which patch
what is there already; `patches` are JSON patches (RFC 6902: add, replace, remove) with a `target` of kind and
name. Anything else is refused, so that what is checked is what a cluster gets.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

KUSTOMIZATION = "kustomization.yaml"
FIELDS = {"apiVersion", "kind", "resources", "components", "patches"}
COMPONENT = "Component"


class RenderError(Exception):
    """A kustomization cannot be rendered."""


def render(path: Path) -> list[Document]:
    """The documents of a file or of a directory's kustomization, patched.

    Raises:
        RenderError: a file is missing or no YAML, a field is not supported, or a patch does not apply.
    """
    if not path.is_dir():
        return load(path)
    if is_component(path):
        raise RenderError(f"{path / KUSTOMIZATION}: a component is no resource; name it among components")
    return _rendered(path, [])


def _rendered(path: Path, beneath: list[Document]) -> list[Document]:
    """The documents of a directory's kustomization: those beneath it, its own, its components', patched."""
    kustomization = _kustomization(path)
    documents = [*beneath, *(found for name in kustomization["resources"] for found in render(path / name))]
    for name in kustomization["components"]:
        if not is_component(path / name):
            raise RenderError(f"{path / KUSTOMIZATION}: {name} is no component")
        documents = _rendered(path / name, documents)
    for patch in kustomization["patches"]:
        targets = [document for document in documents if _is_target(document, patch["target"])]
        if len(targets) != 1:
            raise RenderError(
                f"{path / KUSTOMIZATION}: {len(targets)} documents are {patch['target']}; expected one"
            )
        index = documents.index(targets[0])
        documents[index] = patched(targets[0], yaml.safe_load(patch["patch"]), at=path / KUSTOMIZATION)
    return documents


def files_of(path: Path) -> Iterator[Path]:
    """Every file that rendering reads."""
    if not path.is_dir():
        yield path.resolve()
        return
    yield (path / KUSTOMIZATION).resolve()
    kustomization = _kustomization(path)
    for name in (*kustomization["resources"], *kustomization["components"]):
        yield from files_of(path / name)


def whole_kustomizations(directory: Path) -> list[Path]:
    """The directories below with a kustomization that can be rendered by itself, as a component cannot.

    Raises:
        RenderError: one of them is no YAML.
    """
    found = sorted(path.parent for path in directory.rglob(KUSTOMIZATION))
    return [path for path in found if not is_component(path)]


def is_component(directory: Path) -> bool:
    """Whether the directory's kustomization is of that kind."""
    (document,) = load(directory / KUSTOMIZATION)
    return bool(document.get("kind") == COMPONENT)


def load(path: Path) -> list[Document]:
    """The documents of a YAML file.

    Raises:
        RenderError: it is missing, or it holds something other than YAML mappings.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except (OSError, yaml.YAMLError) as error:
        raise RenderError(f"{path}: {error}") from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise RenderError(f"{path}: expected YAML mappings")
    return documents


def patched(document: Document, operations: list[Document], *, at: Path) -> Document:
    """A copy of a document with a JSON patch applied.

    Raises:
        RenderError: an operation is not supported, or there is nothing at its path.
    """
    result = copy.deepcopy(document)
    for operation in operations:
        try:
            _apply(result, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise RenderError(f"{at}: the patch {operation} does not apply: {error!r}") from error
    return result


def _apply(document: Document, operation: Document) -> None:
    op = operation["op"]
    *parents, last = [
        step.replace("~1", "/").replace("~0", "~") for step in operation["path"].removeprefix("/").split("/")
    ]
    place: Any = document
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place[step]
    key: Any = last
    if isinstance(place, list):
        key = len(place) if last == "-" and op == "add" else int(last)
    if op == "add" and isinstance(place, list):
        place.insert(key, operation["value"])
    elif op == "add":
        place[key] = operation["value"]
    elif op == "replace":
        # What is replaced must be there.
        place[key]
        place[key] = operation["value"]
    elif op == "remove":
        del place[key]
    else:
        raise ValueError(f"unsupported op {op!r}")


def _kustomization(directory: Path) -> Document:
    path = directory / KUSTOMIZATION
    (document,) = load(path)
    if unknown := set(document) - FIELDS:
        raise RenderError(f"{path}: these checks cannot render {', '.join(sorted(unknown))}")
    if not document.get("resources") and document.get("kind") != COMPONENT:
        raise RenderError(f"{path}: it names no resources")
    return {"resources": [], "components": [], "patches": [], **document}


def _is_target(document: Document, target: Document) -> bool:
    return bool(document["kind"] == target["kind"] and document["metadata"]["name"] == target["name"])
