"""From the arguments of a selection to its request; what is wrong with them is said before it is sent."""

from __future__ import annotations

import math
import numbers
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from topb.channel import MAX_MESSAGE_BYTES
from topb.errors import InvalidRequestError, LimitExceededError
from topb.selections import SelectionState
from topb.v1 import selection_pb2

PoolFormatName = Literal["parquet", "image-folder", "webdataset", "csv"]

_FORMATS: dict[str, selection_pb2.PoolFormat.ValueType] = {
    "parquet": selection_pb2.POOL_FORMAT_PARQUET,
    "image-folder": selection_pb2.POOL_FORMAT_IMAGE_FOLDER,
    "webdataset": selection_pb2.POOL_FORMAT_WEBDATASET,
    "csv": selection_pb2.POOL_FORMAT_CSV,
}
_STATES: dict[str, selection_pb2.SelectionState.ValueType] = {
    state.value: selection_pb2.SelectionState.Value(f"SELECTION_STATE_{state.name}")
    for state in SelectionState
}
MODELS_A_PAGE = 100
_SELECTIONS_A_PAGE = 100
_UINT64_LIMIT = 2**64
_INT64_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class ExcludeFile:
    """Ids to leave out, in a column of a Parquet file that the server reads."""

    uri: str | os.PathLike[str]
    """A path, or a file:// or s3:// URI, within the server's allowed roots."""
    column: str = "id"
    """The column that holds ids, strings or integers."""


def image_id(value: object, *, where: str) -> str:
    """An id as the contract has it: a string as it is, an integer in decimal.

    Args:
        value: what the caller gave.
        where: what the id belongs to, for the message.

    Raises:
        InvalidRequestError: it is neither a string nor an integer, or a string that UTF-8 cannot hold.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"the id of {where} is {value!r}, which UTF-8 cannot hold: {error.reason}",
                reason="ID_INVALID",
            ) from error
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))
    raise InvalidRequestError(
        f"the id of {where} is {value!r} ({type(value).__name__}); ids are strings or integers",
        reason="ID_INVALID",
    )


def selection_spec(
    *,
    budget: int,
    strategy: str,
    model: str | None,
    exclude: Iterable[str | int] | ExcludeFile | None,
    seed: int,
    strategy_options: Mapping[str, str] | None,
) -> selection_pb2.SelectionSpec:
    """What to select, whatever the pool.

    Raises:
        InvalidRequestError: an argument is of the wrong type, or a number that the contract cannot hold.
        LimitExceededError: the ids to leave out do not fit into one message.
    """
    spec = selection_pb2.SelectionSpec(
        budget=_whole_number("budget", budget, -_INT64_LIMIT, _INT64_LIMIT),
        strategy=_text("strategy", strategy),
        model="" if model is None else _text("model", model),
        seed=_whole_number("seed", seed, 0, _UINT64_LIMIT),
        strategy_options={
            _text("the name of a strategy option", name): _text(f"strategy option {name}", value)
            for name, value in (strategy_options or {}).items()
        },
    )
    if exclude is not None:
        spec.exclude.CopyFrom(_exclusion(exclude))
        if spec.ByteSize() > MAX_MESSAGE_BYTES:
            raise LimitExceededError(
                f"the {len(spec.exclude.ids)} ids to leave out take {spec.ByteSize()} bytes, more than the "
                f"{MAX_MESSAGE_BYTES} that one message holds; put them into a Parquet file that the server "
                "reads and give topb.ExcludeFile(uri)",
                reason="EXCLUSION_TOO_LARGE",
            )
    return spec


def served_pool(
    uri: str | os.PathLike[str],
    *,
    format: PoolFormatName | None,
    id_column: str | None,
    image_column: str | None,
    path_column: str | None,
) -> selection_pb2.Pool:
    """A pool that the server reads; what is None is the server's choice.

    Raises:
        InvalidRequestError: the format is none that is known.
    """
    if format is not None and format not in _FORMATS:
        raise InvalidRequestError(
            f'format is "{format}", expected one of {", ".join(_FORMATS)}, or None to let the server look',
            reason="POOL_FORMAT_UNKNOWN",
        )
    return selection_pb2.Pool(
        uri=_text("pool", os.fspath(uri)),
        format=selection_pb2.POOL_FORMAT_UNSPECIFIED if format is None else _FORMATS[format],
        id_column=id_column or "",
        image_column=image_column or "",
        path_column=path_column or "",
    )


def listing(states: Iterable[SelectionState], model: str | None) -> selection_pb2.ListSelectionsRequest:
    """The request for the first page of selections.

    Raises:
        InvalidRequestError: a state is none that is known.
    """
    asked = selection_pb2.ListSelectionsRequest(page_size=_SELECTIONS_A_PAGE, model=model or "")
    for state in [states] if isinstance(states, str) else states:
        if state not in _STATES:
            raise InvalidRequestError(
                f"{state!r} is no state of a selection; expected of {', '.join(_STATES)}",
                reason="ARGUMENT_INVALID",
                metadata={"argument": "states"},
            )
        asked.states.append(_STATES[state])
    return asked


def request_id_of(given: str | None) -> str:
    """What makes the request safe to repeat: the caller's id, else a new UUID.

    Raises:
        InvalidRequestError: it is not a string, or an empty one.
    """
    if given is None:
        return str(uuid.uuid4())
    if not _text("request_id", given):
        raise InvalidRequestError(
            "request_id is empty; give a name for this request, such as a UUID, or None to have one drawn",
            reason="ARGUMENT_INVALID",
            metadata={"argument": "request_id"},
        )
    return given


def check_streamed(pool: object, *, kinds: tuple[type, ...], detached: bool, **layout: str | None) -> None:
    """Raises what is wrong with a pool that is to be sent, before anything is.

    Args:
        pool: what the caller gave.
        kinds: of what it may be one.
        detached: whether the selection was to run on without the caller.
        layout: of a pool at a path or URI.
    """
    if isinstance(pool, (bytes, bytearray, Mapping)) or not isinstance(pool, kinds):
        raise InvalidRequestError(
            f"pool is of type {type(pool).__name__}; expected a path or URI that the server reads, or rows "
            "of (id, encoded bytes) or (id, uint8 array (height, width, 3))",
            reason="POOL_INVALID",
        )
    given = [name for name, value in layout.items() if value is not None]
    if detached:
        given.append("detached")
    if given:
        raise InvalidRequestError(
            f"{', '.join(given)}: only for a pool that the server reads; this one is sent row by row",
            reason="ARGUMENT_INVALID",
            metadata={"argument": given[0]},
        )


def encoded_images(images: Iterable[bytes]) -> list[bytes]:
    """The images to score.

    Raises:
        InvalidRequestError: one of them is not bytes.
    """
    encoded = []
    for row, image in enumerate(images):
        if not isinstance(image, (bytes, bytearray, memoryview)):
            raise InvalidRequestError(
                f"image {row} is of type {type(image).__name__}; expected the bytes of an encoded image",
                reason="IMAGE_INVALID",
            )
        encoded.append(bytes(image))
    return encoded


def call_timeout(timeout: float | None, default: float | None) -> float | None:
    """Seconds that a call may take, None for as long as it needs.

    Args:
        timeout: the call's own; None for the client's, infinity for no deadline.
        default: the client's.

    Raises:
        InvalidRequestError: it is not a positive number.
    """
    chosen = default if timeout is None else timeout
    if chosen is None or chosen == math.inf:
        return None
    if not isinstance(chosen, numbers.Real) or not chosen > 0:
        raise InvalidRequestError(
            f"timeout is {chosen!r}; expected seconds, more than 0", reason="TIMEOUT_INVALID"
        )
    return float(chosen)


def _exclusion(exclude: Iterable[str | int] | ExcludeFile) -> selection_pb2.Exclusion:
    if isinstance(exclude, ExcludeFile):
        return selection_pb2.Exclusion(uri=os.fspath(exclude.uri), column=exclude.column)
    if isinstance(exclude, (str, bytes, os.PathLike)) or not isinstance(exclude, Iterable):
        raise InvalidRequestError(
            f"exclude is {exclude!r} ({type(exclude).__name__}); "
            "expected ids, or topb.ExcludeFile(uri) for a file that the server reads",
            reason="EXCLUSION_INVALID",
        )
    ids = (image_id(value, where=f"row {row} of exclude") for row, value in enumerate(exclude))
    return selection_pb2.Exclusion(ids=ids)


def _whole_number(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise InvalidRequestError(
            f"{name} is {value!r} ({type(value).__name__}); expected a whole number",
            reason="ARGUMENT_INVALID",
            metadata={"argument": name},
        )
    number = int(value)
    if not low <= number < high:
        raise InvalidRequestError(
            f"{name} is {number}; expected a whole number from {low} to {high - 1}",
            reason="ARGUMENT_INVALID",
            metadata={"argument": name},
        )
    return number


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(
            f"{name} is {value!r} ({type(value).__name__}); expected a string",
            reason="ARGUMENT_INVALID",
            metadata={"argument": name},
        )
    return value
