"""Read the names of a model's classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from topb_trainer.errors import ModelImportError


def read_class_names(path: Path, count: int) -> list[str]:
    """Return the names of `count` classes, by index.

    Args:
        path: a text file with one name in each line; or JSON, if it is called .json: a list of names, a
            mapping from index to name, or the config.json of a model of Hugging Face, with its `id2label`.
        count: the number of classes of the model.

    Raises:
        ModelImportError: with reason IMPORT_CLASSES if the file cannot be read or has other names.
    """
    try:
        text = path.read_text(encoding="utf-8")
        names = _from_json(json.loads(text)) if path.suffix.lower() == ".json" else _lines(text)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(path, f"cannot be read as a list of classes: {error}") from error
    if len(names) != count:
        raise _unusable(path, f"has {len(names)} classes, but the model has {count}")
    return names


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _from_json(content: Any) -> list[str]:
    named = content.get("id2label", content) if isinstance(content, dict) else dict(enumerate(content))
    by_index = {int(index): str(name) for index, name in named.items()}
    if sorted(by_index) != list(range(len(by_index))):
        raise ValueError(f"its indices are not 0 to {len(by_index) - 1}")
    return [by_index[index] for index in range(len(by_index))]


def _unusable(path: Path, fault: str) -> ModelImportError:
    return ModelImportError(
        f"{path} {fault}; give one name in each line, in the order of the model's outputs",
        reason="IMPORT_CLASSES",
        file=path,
    )
