"""Translate between the messages of topb.v1 and the scorer's types, without reading or writing files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from numpy.typing import NDArray

from topb.pools import Pool, PoolFormatName
from topb.progress import Progress, QueuePlace
from topb.results import Accounts, Pick, SelectionResult
from topb.selections import SelectionState
from topb.v1 import model_pb2, selection_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.errors import InvalidRequestError, LimitExceededError, ScorerError
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.pools.digests_by_id import DigestsById
from topb_scorer.pools.pool import DIGEST_BYTES, Shard
from topb_scorer.pools.stream import ChunkShard, VectorChunkShard
from topb_scorer.selecting.spec import DEFAULT_STRATEGY, SelectionSpec
from topb_scorer.strategies import served_by

STATES = {
    state: selection_pb2.SelectionState.Value(f"SELECTION_STATE_{state.name}") for state in SelectionState
}

_FORMATS: dict[int, PoolFormatName | None] = {
    selection_pb2.POOL_FORMAT_UNSPECIFIED: None,
    selection_pb2.POOL_FORMAT_PARQUET: "parquet",
    selection_pb2.POOL_FORMAT_IMAGE_FOLDER: "image-folder",
    selection_pb2.POOL_FORMAT_WEBDATASET: "webdataset",
    selection_pb2.POOL_FORMAT_CSV: "csv",
    selection_pb2.POOL_FORMAT_VECTORS: "vectors",
}


def spec_of(message: selection_pb2.SelectionSpec, exclude: Mapping[str, bytes]) -> SelectionSpec:
    """Return the spec of a selection.

    Args:
        message: the spec as the caller sent it.
        exclude: all images to leave out, including those in the file that the message refers to: the content
            digest of each by its id.

    Raises:
        InvalidRequestError: a field is out of range, or a strategy or an option is unknown.
        LimitExceededError: the budget is too large.
    """
    return SelectionSpec(
        budget=message.budget,
        strategy=message.strategy or DEFAULT_STRATEGY,
        seed=message.seed,
        exclude=exclude,
        options=dict(message.strategy_options),
        include_labelled=message.include_labelled,
    )


def excluded_images(message: selection_pb2.Exclusion) -> DigestsById:
    """Return the images that a message excludes by their ids, without those in the file that it refers to.

    Returns:
        the content digest of each image by its id.

    Raises:
        InvalidRequestError: the digests do not belong to the ids, or one has another length.
    """
    if not message.digests:
        return DigestsById.pairs(message.ids)
    if len(message.digests) != len(message.ids):
        raise InvalidRequestError(
            f"the exclusion has {len(message.digests)} digests for {len(message.ids)} ids; expected one for "
            "each id, empty if it is not known, or none at all",
            reason="EXCLUSION_DIGESTS",
        )
    wrong = next((digest for digest in message.digests if len(digest) not in (0, DIGEST_BYTES)), None)
    if wrong is not None:
        raise InvalidRequestError(
            f"a digest of the exclusion has {len(wrong)} bytes; expected {DIGEST_BYTES}, "
            "or an empty digest if it is not known",
            reason="EXCLUSION_DIGESTS",
        )
    return DigestsById.pairs(message.ids, message.digests)


def differing_fields(one: Message, other: Message) -> list[str]:
    """Return the names of the fields in which two messages of one type differ, such as `spec.budget`."""
    names = []
    for name in (field.name for field in one.DESCRIPTOR.fields):
        mine, its = getattr(one, name), getattr(other, name)
        if isinstance(mine, Message):
            names += [f"{name}.{part}" for part in differing_fields(mine, its)]
        elif mine != its:
            names.append(name)
    return names


def pool_of(message: selection_pb2.Pool) -> Pool:
    """Return the description of a pool.

    Raises:
        InvalidRequestError: the format is unknown, for example because it is from a later release.
    """
    if message.format not in _FORMATS:
        raise InvalidRequestError(
            f"pool format {message.format} is unknown; expected one of {sorted(_FORMATS)}",
            reason="POOL_FORMAT",
        )
    return Pool(
        message.uri,
        format=_FORMATS[message.format],
        id_column=message.id_column or None,
        image_column=message.image_column or None,
        path_column=message.path_column or None,
        embedding_column=message.embedding_column or None,
        probabilities_column=message.probabilities_column or None,
    )


def shard_of(chunk: selection_pb2.PoolChunk, expected_seq: int, *, max_bytes: int, max_rows: int) -> Shard:
    """Return the chunk as a shard.

    Args:
        chunk: the chunk as the caller sent it.
        expected_seq: the sequence number that the chunk must have.
        max_bytes: the maximum number of bytes of images or vectors, and also of the bytes of the ids.
        max_rows: the maximum number of images or vectors in the chunk.

    Raises:
        InvalidRequestError: the chunk is out of sequence, malformed, or was altered in transit.
        LimitExceededError: the chunk contains more than `max_bytes` or `max_rows`.
    """
    if chunk.seq != expected_seq:
        raise InvalidRequestError(
            f"received chunk {chunk.seq}; expected chunk {expected_seq}",
            reason="CHUNK_OUT_OF_SEQUENCE",
            seq=chunk.seq,
            expected=expected_seq,
        )
    kind = chunk.WhichOneof("images")
    if kind is None:
        raise _malformed(chunk, "contains neither images nor vectors")
    rows = max(len(chunk.ids), len(chunk.encoded.data))
    if rows > max_rows:
        raise LimitExceededError(
            f"chunk {chunk.seq} has {rows} rows; the limit is {max_rows}: send smaller chunks",
            reason="CHUNK_TOO_LARGE",
            seq=chunk.seq,
        )
    ids = list(chunk.ids)
    id_bytes = sum(len(id_.encode()) for id_ in ids)
    if id_bytes > max_bytes:
        raise LimitExceededError(
            f"chunk {chunk.seq} has {id_bytes} bytes of ids; the limit is {max_bytes}: send smaller chunks",
            reason="CHUNK_TOO_LARGE",
            seq=chunk.seq,
        )
    # Each access to a bytes field copies it, so access each field only once.
    packed = chunk.packed.data
    encoded = list(chunk.encoded.data)
    vectors, probabilities = chunk.vectors.data, chunk.vectors.probabilities
    size = len(packed) + sum(map(len, encoded)) + len(vectors) + len(probabilities)
    if size > max_bytes:
        raise LimitExceededError(
            f"chunk {chunk.seq} has {size} bytes of rows; the limit is {max_bytes}: send smaller chunks",
            reason="CHUNK_TOO_LARGE",
            seq=chunk.seq,
        )
    crc32 = zlib.crc32(packed)
    for image in (*encoded, vectors, probabilities):
        crc32 = zlib.crc32(image, crc32)
    if crc32 != chunk.crc32:
        raise InvalidRequestError(
            f"chunk {chunk.seq} was altered in transit: its CRC-32 is {crc32:08x}, "
            f"expected {chunk.crc32:08x}; send it again",
            reason="CHUNK_CHECKSUM",
            seq=chunk.seq,
        )
    if kind == "vectors":
        return VectorChunkShard(
            chunk.seq,
            ids,
            _matrix(chunk, vectors, chunk.vectors.width, "vectors"),
            _matrix(chunk, probabilities, chunk.vectors.classes, "rows of probabilities"),
        )
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
    """Return the message for a result without its picks."""
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
    """Return the message for a pick."""
    return selection_pb2.Pick(
        id=pick.id,
        rank=pick.rank,
        score=pick.score,
        predicted_class=pick.predicted_class,
        probability=pick.probability,
        entropy=pick.entropy,
        radius=pick.radius,
        predicted_class_name=pick.predicted_class_name,
    )


def selection_message(
    record: SelectionRecord,
    place: QueuePlace | None,
    *,
    summary: selection_pb2.SelectionSummary | None = None,
    fault: ScorerError | None = None,
) -> selection_pb2.Selection:
    """Return the message for a selection.

    Args:
        record: the selection.
        place: its place in the queue if it waits.
        summary: its summary if it has succeeded.
        fault: why its summary cannot be read although it has succeeded.
    """
    message = selection_pb2.Selection(
        id=record.id,
        request_id=record.request_id,
        state=STATES[record.state],
        model=record.model,
        strategy=record.strategy,
        budget=record.budget,
        pool_uri=record.pool_uri,
        progress=progress_message(replace(record.progress, queue=place)),
        error_reason=fault.reason if fault else record.error_reason,
        error_message=str(fault) if fault else record.error_message,
    )
    message.create_time.FromNanoseconds(round(record.created * 1e9))
    message.update_time.FromNanoseconds(round(record.updated * 1e9))
    if record.ended is not None:
        message.end_time.FromNanoseconds(round(record.ended * 1e9))
    if summary is not None:
        message.summary.CopyFrom(summary)
        # The progress in the catalog dates from the last renewal of the lease.
        message.progress.read = message.progress.total = summary.accounts.read
    return message


def progress_message(progress: Progress) -> selection_pb2.SelectionProgress:
    """Return the message for the progress of a selection."""
    message = selection_pb2.SelectionProgress(
        read=progress.read, total=progress.total, elapsed=duration_message(progress.elapsed_seconds)
    )
    if progress.queue is not None:
        message.queue.position, message.queue.length = progress.queue.position, progress.queue.length
    return message


def model_message(bundle: Bundle, default_id: str) -> model_pb2.Model:
    """Return the message for a model."""
    return model_pb2.Model(
        bundle=bundle.manifest,
        is_default=bundle.model_id == default_id,
        served_strategies=sorted(served_by(bundle.strategies, bundle.output_shapes)),
    )


def duration_message(seconds: float) -> duration_pb2.Duration:
    """Return the message for a duration, to the microsecond."""
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _accounts_message(accounts: Accounts) -> selection_pb2.Accounts:
    message = selection_pb2.Accounts(
        read=accounts.read,
        scored=accounts.scored,
        duplicate=accounts.duplicate,
        excluded=accounts.excluded,
        excluded_unmatched=accounts.excluded_unmatched,
        excluded_labelled=accounts.excluded_labelled,
        labelled_unmatched=accounts.labelled_unmatched,
    )
    for reason, count in accounts.skipped.items():
        message.skipped.add(reason=reason, count=count)
    for row in accounts.skipped_examples:
        message.skipped_examples.add(id=row.id, reason=row.reason, detail=row.detail)
    return message


def _matrix(chunk: selection_pb2.PoolChunk, data: bytes, width: int, what: str) -> NDArray[np.float32]:
    """Return numbers of a chunk as float32 (n, width)."""
    rows = len(chunk.ids)
    if len(data) != rows * width * 4 or (rows and not width and what == "vectors"):
        raise _malformed(chunk, f"has {len(data)} bytes for {rows} {what} of {width} float32 numbers")
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False).reshape(rows, width)


def _malformed(chunk: selection_pb2.PoolChunk, fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"chunk {chunk.seq} {fault}", reason="CHUNK_MALFORMED", seq=chunk.seq)
