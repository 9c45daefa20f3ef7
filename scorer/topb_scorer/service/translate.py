"""Between the messages of topb.v1 and the scorer's own types."""

from __future__ import annotations

import zlib
from contextlib import suppress

import numpy as np
from google.protobuf import duration_pb2

from topb.progress import Progress
from topb.results import Accounts, Pick, SelectionResult
from topb.selections import SelectionState
from topb.v1 import model_pb2, selection_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.errors import InvalidRequestError, LimitExceededError, NotFoundError
from topb_scorer.imaging import ImageLimits
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.results import ResultStore
from topb_scorer.pools import AllowedRoots, Columns, Pool, PoolFormat, open_pool, read_excluded_ids
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.selecting.spec import DEFAULT_STRATEGY, SelectionSpec

STATES = {
    SelectionState.PENDING: selection_pb2.SELECTION_STATE_PENDING,
    SelectionState.RUNNING: selection_pb2.SELECTION_STATE_RUNNING,
    SelectionState.SUCCEEDED: selection_pb2.SELECTION_STATE_SUCCEEDED,
    SelectionState.FAILED: selection_pb2.SELECTION_STATE_FAILED,
    SelectionState.CANCELLED: selection_pb2.SELECTION_STATE_CANCELLED,
}

_FORMATS = {
    selection_pb2.POOL_FORMAT_UNSPECIFIED: None,
    selection_pb2.POOL_FORMAT_PARQUET: PoolFormat.PARQUET,
    selection_pb2.POOL_FORMAT_IMAGE_FOLDER: PoolFormat.IMAGE_FOLDER,
    selection_pb2.POOL_FORMAT_WEBDATASET: PoolFormat.WEBDATASET,
    selection_pb2.POOL_FORMAT_CSV: PoolFormat.CSV,
}


def spec_of(message: selection_pb2.SelectionSpec, roots: AllowedRoots) -> SelectionSpec:
    """What to select; reads the file of excluded ids, if one is named."""
    exclude = set(message.exclude.ids)
    if message.exclude.uri:
        exclude.update(read_excluded_ids(message.exclude.uri, message.exclude.column or "id", roots))
    return SelectionSpec(
        budget=message.budget,
        strategy=message.strategy or DEFAULT_STRATEGY,
        seed=message.seed,
        exclude=frozenset(exclude),
        options=dict(message.strategy_options),
    )


def pool_of(message: selection_pb2.Pool, roots: AllowedRoots, limits: ImageLimits) -> Pool:
    """The pool that the server is to read."""
    if message.format not in _FORMATS:
        raise InvalidRequestError(f"pool format {message.format} is not known", reason="POOL_FORMAT")
    default = Columns()
    columns = Columns(
        message.id_column or default.id,
        message.image_column or default.image,
        message.path_column or default.path,
    )
    return open_pool(
        message.uri, format=_FORMATS[message.format], columns=columns, roots=roots, limits=limits
    )


def shard_of(chunk: selection_pb2.PoolChunk, expected_seq: int, max_bytes: int) -> ChunkShard:
    """The chunk, if it is the next one, whole and well-formed.

    Raises:
        InvalidRequestError: it is not.
        LimitExceededError: it holds more than `max_bytes` of images.
    """
    if chunk.seq != expected_seq:
        raise InvalidRequestError(
            f"chunk {chunk.seq} came where chunk {expected_seq} was due",
            reason="CHUNK_OUT_OF_SEQUENCE",
            seq=chunk.seq,
            expected=expected_seq,
        )
    kind = chunk.WhichOneof("images")
    if kind is None:
        raise _malformed(chunk, "holds no images")
    # Reading a bytes field copies it: once each.
    packed = chunk.packed.data
    encoded = list(chunk.encoded.data)
    size = len(packed) + sum(map(len, encoded))
    if size > max_bytes:
        raise LimitExceededError(
            f"chunk {chunk.seq} has {size} bytes of images; at most {max_bytes} are taken",
            reason="CHUNK_TOO_LARGE",
            seq=chunk.seq,
        )
    crc32 = zlib.crc32(packed)
    for image in encoded:
        crc32 = zlib.crc32(image, crc32)
    if crc32 != chunk.crc32:
        raise InvalidRequestError(
            f"chunk {chunk.seq} has CRC-32 {crc32:08x}, not {chunk.crc32:08x} as it says: altered on the way",
            reason="CHUNK_CHECKSUM",
            seq=chunk.seq,
        )
    ids = list(chunk.ids)
    if kind == "encoded":
        if len(encoded) != len(ids):
            raise _malformed(chunk, f"has {len(ids)} ids for {len(encoded)} images")
        return ChunkShard(chunk.seq, ids, encoded)
    if not ids and not packed:
        return ChunkShard(chunk.seq, [], [])
    height, width = chunk.packed.height, chunk.packed.width
    if height < 1 or width < 1 or len(packed) != len(ids) * height * width * 3:
        raise _malformed(chunk, f"has {len(packed)} bytes for {len(ids)} images of {height}×{width}×3")
    return ChunkShard(chunk.seq, ids, np.frombuffer(packed, np.uint8).reshape(-1, height, width, 3))


def summary_message(result: SelectionResult, pick_count: int) -> selection_pb2.SelectionSummary:
    """All of the result but its picks, which are so many."""
    return selection_pb2.SelectionSummary(
        model=result.model,
        strategy=result.strategy,
        seed=result.seed,
        budget=result.budget,
        pick_count=pick_count,
        accounts=_accounts_message(result.accounts),
        elapsed=duration_message(result.elapsed_seconds),
        measures=dict(result.measures),
    )


def pick_message(pick: Pick) -> selection_pb2.Pick:
    """The pick as the service sends it."""
    return selection_pb2.Pick(
        id=pick.id,
        rank=pick.rank,
        score=pick.score,
        predicted_class=pick.predicted_class,
        probability=pick.probability,
        entropy=pick.entropy,
        radius=pick.radius,
    )


def selection_message(record: SelectionRecord, results: ResultStore) -> selection_pb2.Selection:
    """The selection as the service lists it."""
    message = selection_pb2.Selection(
        id=record.id,
        request_id=record.request_id,
        state=STATES[record.state],
        model=record.model,
        strategy=record.strategy,
        budget=record.budget,
        pool_uri=record.pool_uri,
        progress=progress_message(
            Progress(read=record.read, total=record.total, elapsed_seconds=record.elapsed_seconds)
        ),
        error_reason=record.error_reason,
        error_message=record.error_message,
    )
    message.create_time.FromNanoseconds(round(record.created * 1e9))
    message.update_time.FromNanoseconds(round(record.updated * 1e9))
    if record.ended is not None:
        message.end_time.FromNanoseconds(round(record.ended * 1e9))
    if record.state is SelectionState.SUCCEEDED:
        with suppress(NotFoundError):
            message.summary.CopyFrom(summary_message(*results.read_summary(record.id)))
            # What the catalog has of it is a moment old.
            read = message.summary.accounts.read
            message.progress.read, message.progress.total = read, read
    return message


def progress_message(progress: Progress) -> selection_pb2.SelectionProgress:
    """The progress as the service sends it."""
    return selection_pb2.SelectionProgress(
        read=progress.read, total=progress.total, elapsed=duration_message(progress.elapsed_seconds)
    )


def model_message(bundle: Bundle, default_id: str) -> model_pb2.Model:
    """The model as the service lists it."""
    return model_pb2.Model(bundle=bundle.manifest, is_default=bundle.model_id == default_id)


def duration_message(seconds: float) -> duration_pb2.Duration:
    """The duration, to the microsecond."""
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _accounts_message(accounts: Accounts) -> selection_pb2.Accounts:
    message = selection_pb2.Accounts(
        read=accounts.read,
        scored=accounts.scored,
        duplicate=accounts.duplicate,
        excluded=accounts.excluded,
    )
    for reason, count in accounts.skipped.items():
        message.skipped.add(reason=reason, count=count)
    for row in accounts.skipped_examples:
        message.skipped_examples.add(id=row.id, reason=row.reason, detail=row.detail)
    return message


def _malformed(chunk: selection_pb2.PoolChunk, fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"chunk {chunk.seq} {fault}", reason="CHUNK_MALFORMED", seq=chunk.seq)
