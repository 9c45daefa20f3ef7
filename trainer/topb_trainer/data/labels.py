"""Labels and class names of a labelled set: from a column, from WebDataset's `.cls`, or from the folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa

from topb_scorer.pools import OpenPool
from topb_scorer.pools.csv_list import csv_column
from topb_scorer.pools.parquet_file import PARQUET_READ_ERRORS, ids_as_strings, open_parquet_file
from topb_scorer.pools.storage import Location
from topb_scorer.pools.storage.location import unreadable_file
from topb_scorer.pools.webdataset import webdataset_members
from topb_trainer.errors import InvalidDataError

ID_COLUMN = "id"
LABEL_COLUMN = "label"
CLS = "cls"
"""The extension of WebDataset's members that hold a class, by its name or its index."""

_Label = int | str | None


def read_class_names(
    pool: OpenPool, known: Sequence[str] | None
) -> tuple[dict[str, str], list[str] | None] | None:
    """Return the class name of each id in a labelled set, and the classes that its files declare, if any do.

    The labels of an image folder are the names of its folders; see `folder_class_name`. For it, the result is
    None.

    A label is the name of a class, or its index in the JSON list that a Parquet file has under the schema's
    metadata key `classes`. Each file's own list counts, and the classes of the set are those of all lists in
    the order of the files. If no file has a list, an index refers to the `known` classes, unless their names
    are numbers themselves. Otherwise the number is the name of the class.

    Raises:
        InvalidDataError: a column is missing or has another type, a label is missing or unknown, an index has
            no list although another file has one, or an id occurs twice.
        ScorerError: a file cannot be read.
    """
    if pool.format == "image-folder":
        return None
    without = next((file for file in pool.files if str(file).lower().endswith(".npy")), None)
    if without is not None:
        raise InvalidDataError(
            f"{without} cannot have labels; expected Parquet files with id, {LABEL_COLUMN} and embedding",
            reason="LABEL_MISSING",
        )
    is_parquet = pool.format in ("parquet", "vectors")
    lists = {file: _declared_classes(file) for file in pool.files} if is_parquet else {}
    declared = list(dict.fromkeys(name for classes in lists.values() for name in classes or ()))
    names: dict[str, str] = {}
    for file in pool.files:
        own = lists.get(file)
        for id_, label in _labels(file, pool.format):
            if id_ in names:
                raise InvalidDataError(
                    f"{file}: the id {id_!r} occurs twice; expected distinct ids",
                    reason="DUPLICATE_ID",
                    id=id_,
                )
            if declared and own is None and isinstance(label, int):
                raise InvalidDataError(
                    f"{file}: {id_} has the label {label}, but this file does not list its classes as others "
                    "do; give it the metadata key `classes`, or names as labels",
                    reason="LABEL_UNKNOWN",
                )
            names[id_] = _class_name(label, own, None if declared else known, f"{file}: {id_}")
    declared += sorted({*names.values()} - {*declared}) if declared else []
    return names, declared or None


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


def _labels(file: Location, format: str) -> Iterator[tuple[str, _Label]]:
    """Yield ids and labels. Rows without an id are left out: their images are unusable."""
    if format == "csv":
        yield from ((id_, _number_or_name(text)) for id_, text in csv_column(file, ID_COLUMN, LABEL_COLUMN))
    elif format == "webdataset":
        for key, content in webdataset_members(file, CLS):
            yield key, _number_or_name("" if content is None else content.decode(errors="replace").strip())
    else:
        try:
            with open_parquet_file(file) as opened:
                table = opened.read([ID_COLUMN, LABEL_COLUMN])
        except PARQUET_READ_ERRORS as error:
            raise unreadable_file(file, "Parquet", error) from error
        rows = zip(ids_as_strings(table[ID_COLUMN]), table[LABEL_COLUMN].to_pylist(), strict=True)
        yield from ((id_, label) for id_, label in rows if id_)


def _number_or_name(text: str) -> _Label:
    """Return the label that a text means: nothing if it is empty, and a number if it is written like one."""
    digits = text.removeprefix("-")
    is_number = digits.isascii() and digits.isdecimal() and str(int(digits)) == digits
    return int(text) if is_number else text or None


def _declared_classes(file: Location) -> list[str] | None:
    """Return the classes that a Parquet file lists, or None; check its columns."""
    try:
        with open_parquet_file(file) as opened:
            schema = opened.schema_arrow
    except PARQUET_READ_ERRORS as error:
        raise unreadable_file(file, "Parquet", error) from error
    _check_columns(file, schema)
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


def _check_columns(file: Location, schema: pa.Schema) -> None:
    for column in (ID_COLUMN, LABEL_COLUMN):
        if column not in schema.names:
            raise InvalidDataError(
                f"{file} has no column {column!r}; it has {', '.join(schema.names)}. "
                "A labelled set has id, label, and image, path or embedding",
                reason="COLUMN_MISSING",
                column=column,
            )
    kind = schema.field(LABEL_COLUMN).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InvalidDataError(
            f"{file}: column {LABEL_COLUMN!r} holds {kind}; expected integers or strings", reason="LABEL_TYPE"
        )


def _class_name(
    label: _Label, declared: Sequence[str] | None, known: Sequence[str] | None, where: str
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
