"""Convert the arguments of calls to messages, and reject invalid arguments before anything is sent."""

from __future__ import annotations

import datetime
import math
import numbers
import os
import uuid
from collections.abc import Iterable, Mapping

from topb import _translate
from topb._channel import MAX_MESSAGE_BYTES
from topb.errors import InvalidRequestError, LimitExceededError
from topb.pools import ExcludeFile, Pool
from topb.results import SelectionResult
from topb.selections import SelectionState
from topb.v1 import selection_pb2

_FORMATS: dict[str, selection_pb2.PoolFormat.ValueType] = {
    "parquet": selection_pb2.POOL_FORMAT_PARQUET,
    "image-folder": selection_pb2.POOL_FORMAT_IMAGE_FOLDER,
    "webdataset": selection_pb2.POOL_FORMAT_WEBDATASET,
    "csv": selection_pb2.POOL_FORMAT_CSV,
    "vectors": selection_pb2.POOL_FORMAT_VECTORS,
}
MODELS_A_PAGE = 100
_SELECTIONS_A_PAGE = 100
Exclude = Iterable[str | int] | Mapping[str | int, bytes] | SelectionResult | ExcludeFile
"""What a selection can leave out: ids, content digests by id, the picks of another selection, or a file."""

EXPECTED_ROWS = (
    "(id, encoded bytes), (id, uint8 array (height, width, 3)), (id, vector) or (id, vector, probabilities), "
    "with floating-point arrays (D,) and (C,)"
)
"""The forms of rows of a pool that a client sends, for error messages."""
NO_MODEL = "none"
"""Given in place of a model's id to select from vectors without a model."""

_UINT64_LIMIT = 2**64
_INT64_LIMIT = 2**63


def image_id(value: object, *, where: str) -> str:
    """Return an id as the contract defines it: strings stay unchanged, and integers are written in decimal.

    Args:
        value: The id that the caller gave.
        where: What the id belongs to, for the error message.

    Raises:
        InvalidRequestError: If it is neither a string nor an integer, or UTF-8 cannot encode it.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"the id of {where} is {value!r}, which UTF-8 cannot encode: {error.reason}",
                reason="ID_INVALID",
            ) from error
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))
    raise InvalidRequestError(
        f"the id of {where} is {value!r} ({type(value).__name__}); expected a string or an integer",
        reason="ID_INVALID",
    )


def selection_spec(
    *,
    budget: int,
    strategy: str,
    model: str | None,
    exclude: Exclude | None,
    seed: int,
    strategy_options: Mapping[str, str] | None,
    include_labelled: bool,
) -> selection_pb2.SelectionSpec:
    """Return the part of a request that does not depend on the kind of pool.

    Raises:
        InvalidRequestError: If an argument has the wrong type, or a number is out of range.
        LimitExceededError: If the ids to leave out do not fit into one message.
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
        include_labelled=include_labelled,
    )
    if exclude is not None:
        spec.exclude.CopyFrom(_exclusion(exclude))
        if spec.ByteSize() > MAX_MESSAGE_BYTES:
            raise LimitExceededError(
                f"the {len(spec.exclude.ids)} ids to exclude take {spec.ByteSize()} bytes, more than the "
                f"{MAX_MESSAGE_BYTES} that fit into one message; write them to a Parquet file that the "
                "server reads, and pass topb.ExcludeFile(uri)",
                reason="EXCLUSION_TOO_LARGE",
            )
    return spec


def served_pool(pool: str | os.PathLike[str] | Pool) -> selection_pb2.Pool:
    """Return the message for a pool that the server reads.

    Raises:
        InvalidRequestError: If the format is unknown.
    """
    if not isinstance(pool, Pool):
        pool = Pool(pool)
    if pool.format is not None and pool.format not in _FORMATS:
        raise InvalidRequestError(
            f'the pool format is "{pool.format}"; expected one of {", ".join(_FORMATS)}, or None to let the '
            "server detect it",
            reason="POOL_FORMAT_UNKNOWN",
        )
    uri = os.fspath(pool.uri) if isinstance(pool.uri, os.PathLike) else pool.uri
    return selection_pb2.Pool(
        uri=_text("the URI of the pool", uri),
        format=selection_pb2.POOL_FORMAT_UNSPECIFIED if pool.format is None else _FORMATS[pool.format],
        id_column=pool.id_column or "",
        image_column=pool.image_column or "",
        path_column=pool.path_column or "",
        embedding_column=pool.embedding_column or "",
        probabilities_column=pool.probabilities_column or "",
    )


def listing(states: Iterable[SelectionState], model: str | None) -> selection_pb2.ListSelectionsRequest:
    """Return the request for the first page of selections.

    Raises:
        InvalidRequestError: If a state is unknown.
    """
    request = selection_pb2.ListSelectionsRequest(page_size=_SELECTIONS_A_PAGE, model=model or "")
    for state in [states] if isinstance(states, str) else states:
        if state not in _translate.STATES:
            raise _invalid_argument(
                "states",
                f"{state!r} is not a state of a selection; expected one of {', '.join(_translate.STATES)}",
            )
        request.states.append(_translate.STATES[state])
    return request


def cancelling(
    states: Iterable[SelectionState], model: str | None, created_before: datetime.datetime | None
) -> selection_pb2.ListSelectionsRequest:
    """Return the request for the first page of the selections to cancel.

    Raises:
        InvalidRequestError: If there is no state, a state is unknown, or the time has no time zone.
    """
    request = listing(states, model)
    if not request.states:
        raise _invalid_argument("states", "states is empty; expected the states of the selections to cancel")
    if created_before is not None and created_before.tzinfo is None:
        raise _invalid_argument("created_before", f"created_before is {created_before}, without a time zone")
    return request


def request_id_of(given: str | None) -> str:
    """Return the id that makes a request safe to repeat: the caller's, or a new UUID.

    Raises:
        InvalidRequestError: If the id is not a string, or is empty.
    """
    if given is None:
        return str(uuid.uuid4())
    if not _text("request_id", given):
        raise _invalid_argument(
            "request_id",
            "request_id is empty; expected an id for this request, such as a UUID, or None to generate one",
        )
    return given


def check_rows(pool: object, *, types: tuple[type, ...], detached: bool) -> None:
    """Check a pool whose rows are to be sent.

    Args:
        pool: The pool that the caller gave.
        types: The accepted types of iterables.
        detached: Whether the caller asked for a selection that continues without it.

    Raises:
        InvalidRequestError: If the pool is not an iterable of rows, or the selection is to be detached.
    """
    if isinstance(pool, (bytes, bytearray, Mapping)) or not isinstance(pool, types):
        raise InvalidRequestError(
            f"pool is of type {type(pool).__name__}; expected a path, a URI or a topb.Pool that the server "
            f"reads, or rows of {EXPECTED_ROWS}",
            reason="POOL_INVALID",
        )
    if detached:
        raise _invalid_argument(
            "detached",
            "detached requires a pool that the server reads, but this client sends the rows of the pool",
        )


def encoded_images(images: Iterable[bytes]) -> list[bytes]:
    """Return the images to score as bytes.

    Raises:
        InvalidRequestError: If an image is not bytes.
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
    """Return the timeout of a call in seconds, or None for no timeout.

    Args:
        timeout: The call's own timeout; None for the default, infinity for no timeout.
        default: The client's timeout.

    Raises:
        InvalidRequestError: If it is not a positive number.
    """
    chosen = default if timeout is None else timeout
    if chosen is None or chosen == math.inf:
        return None
    if not isinstance(chosen, numbers.Real) or not chosen > 0:
        raise InvalidRequestError(
            f"timeout is {chosen!r}; expected a positive number of seconds", reason="TIMEOUT_INVALID"
        )
    return float(chosen)


def _exclusion(exclude: Exclude) -> selection_pb2.Exclusion:
    if isinstance(exclude, ExcludeFile):
        return selection_pb2.Exclusion(uri=os.fspath(exclude.uri), column=exclude.column)
    if isinstance(exclude, SelectionResult):
        return selection_pb2.Exclusion(ids=exclude.ids)
    if isinstance(exclude, (str, bytes, os.PathLike)) or not isinstance(exclude, Iterable):
        raise InvalidRequestError(
            f"exclude is {exclude!r} ({type(exclude).__name__}); "
            "expected ids, a mapping from ids to content digests, the result of another selection, or "
            "topb.ExcludeFile(uri) for a file that the server reads",
            reason="EXCLUSION_INVALID",
        )
    ids = (image_id(value, where=f"row {row} of exclude") for row, value in enumerate(exclude))
    digests = exclude.values() if isinstance(exclude, Mapping) else ()
    try:
        return selection_pb2.Exclusion(ids=ids, digests=digests if any(digests) else ())
    except TypeError as error:
        raise InvalidRequestError(
            f"the content digests of exclude must be bytes, or b'' if they are not known: {error}",
            reason="EXCLUSION_INVALID",
        ) from error


def _whole_number(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise _invalid_argument(
            name, f"{name} is {value!r} ({type(value).__name__}); expected a whole number"
        )
    number = int(value)
    if not low <= number < high:
        raise _invalid_argument(name, f"{name} is {number}; expected a whole number from {low} to {high - 1}")
    return number


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _invalid_argument(name, f"{name} is {value!r} ({type(value).__name__}); expected a string")
    return value


def _invalid_argument(name: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, reason="ARGUMENT_INVALID", metadata={"argument": name})
