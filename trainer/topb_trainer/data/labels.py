"""Labels and class names of a labelled set: from a Parquet column, or from the folders of the images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from topb_trainer.errors import InvalidDataError

ID_COLUMN = "id"
LABEL_COLUMN = "label"


def parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files at or below `path`; none if it is an image folder."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*.parquet") if not file.name.startswith("."))


def read_class_names(
    files: Sequence[Path], known: Sequence[str] | None
) -> tuple[dict[str, str], list[str] | None]:
    """Return the class name of each id in Parquet files, and the list of classes if the files declare one.

    A label is the name of a class, or its index in the JSON list under the schema's metadata key `classes`.
    If the file has no such list, an index refers to the `known` classes, unless their names are numbers
    themselves. Otherwise the number is the name of the class.

    Raises:
        InvalidDataError: a column is missing or has another type, a label is null or unknown, or an id occurs
            twice.
    """
    names: dict[str, str] = {}
    declared: list[str] | None = None
    for file in files:
        table = _read_columns(file)
        classes = _declared_classes(file, table.schema)
        declared = declared or classes
        ids = table[ID_COLUMN].cast(pa.string()).to_pylist()
        for id_, label in zip(ids, table[LABEL_COLUMN].to_pylist(), strict=True):
            if id_ in names:
                raise InvalidDataError(
                    f"{file}: the id {id_!r} occurs twice; expected distinct ids",
                    reason="DUPLICATE_ID",
                    id=id_,
                )
            names[id_] = _class_name(label, classes, known, f"{file}: {id_}")
    return names, declared


def folder_class_name(id_: str) -> str:
    """Return the class of an image from its path in the folder, `class/file.jpg`.

    Raises:
        InvalidDataError: the image does not lie in the folder of a class.
    """
    parts = id_.split("/")
    if len(parts) < 2:
        raise InvalidDataError(
            f"{id_} does not lie in the folder of a class; expected the layout class/file.jpg",
            reason="LABEL_MISSING",
            id=id_,
        )
    return parts[0]


def _read_columns(file: Path) -> pa.Table:
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise InvalidDataError(
            f"{file} cannot be read as Parquet: {error}", reason="LABELS_UNREADABLE", file=file
        ) from error
    for column in (ID_COLUMN, LABEL_COLUMN):
        if column not in schema.names:
            raise InvalidDataError(
                f"{file} has no column {column!r}; it has {', '.join(schema.names)}. "
                "A labelled set has id, label, and image or path",
                reason="COLUMN_MISSING",
                column=column,
            )
    kind = schema.field(LABEL_COLUMN).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InvalidDataError(
            f"{file}: column {LABEL_COLUMN!r} holds {kind}; expected integers or strings", reason="LABEL_TYPE"
        )
    # ParquetFile reads this file only; read_table would look for a partitioned data set.
    return pq.ParquetFile(file).read([ID_COLUMN, LABEL_COLUMN])


def _declared_classes(file: Path, schema: pa.Schema) -> list[str] | None:
    text = (schema.metadata or {}).get(b"classes")
    if text is None:
        return None
    try:
        classes = json.loads(text)
    except ValueError:
        classes = None
    if (
        not isinstance(classes, list)
        or not all(isinstance(name, str) for name in classes)
        or len(set(classes)) < len(classes)
    ):
        raise InvalidDataError(
            f"{file}: the metadata key `classes` is not a JSON list of distinct names",
            reason="CLASSES_INVALID",
        )
    return classes


def _class_name(
    label: int | str | None, declared: Sequence[str] | None, known: Sequence[str] | None, where: str
) -> str:
    if label is None:
        raise InvalidDataError(
            f"{where} has no label; label the row, or leave it out", reason="LABEL_MISSING"
        )
    if isinstance(label, str):
        if declared is not None and label not in declared:
            raise InvalidDataError(
                f"{where}: {label!r} is not one of the classes that the file declares", reason="LABEL_UNKNOWN"
            )
        return label
    if declared is None and known is not None and not any(name.isdecimal() for name in known):
        declared = known
    if declared is None:
        return str(label)
    if not 0 <= label < len(declared):
        raise InvalidDataError(
            f"{where}: label {label} is out of range; expected 0 to {len(declared) - 1} for {len(declared)} "
            "classes",
            reason="LABEL_UNKNOWN",
        )
    return declared[label]
