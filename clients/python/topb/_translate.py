"""Convert messages of the contract to the SDK's frozen types."""

from __future__ import annotations

import datetime

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from topb.descriptions import GateMeasurement, Limits, Model, ModelOutput, ServerInfo
from topb.errors import ProtocolError
from topb.image_input import ImageInput
from topb.progress import Progress, QueuePlace
from topb.results import Accounts, Pick, SkippedRow
from topb.scores import ImageScores, SkippedImage
from topb.selections import Selection, SelectionState
from topb.v1 import bundle_pb2, model_pb2, selection_pb2

STATES: dict[str, selection_pb2.SelectionState.ValueType] = {
    state: selection_pb2.SelectionState.Value(f"SELECTION_STATE_{state.name}")
    for state in SelectionState
    if state is not SelectionState.UNSPECIFIED
}
_STATES_BY_VALUE = {value: SelectionState(state) for state, value in STATES.items()}


def seconds(duration: Duration) -> float:
    """Return the duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def progress(message: selection_pb2.SelectionProgress) -> Progress:
    """Return the progress of a selection."""
    place = message.queue
    return Progress(
        read=message.read,
        total=message.total,
        elapsed_seconds=seconds(message.elapsed),
        queue=QueuePlace(place.position, place.length) if message.HasField("queue") else None,
    )


def pick(message: selection_pb2.Pick) -> Pick:
    """Return one pick."""
    return Pick(
        id=message.id,
        rank=message.rank,
        score=message.score,
        predicted_class=message.predicted_class,
        probability=message.probability,
        entropy=message.entropy,
        radius=message.radius if message.HasField("radius") else None,
        predicted_class_name=message.predicted_class_name,
    )


def accounts(message: selection_pb2.Accounts) -> Accounts:
    """Return the row counts by outcome.

    Raises:
        ProtocolError: If the counts do not add up.
    """
    try:
        return Accounts(
            read=message.read,
            scored=message.scored,
            skipped={skipped.reason: skipped.count for skipped in message.skipped},
            duplicate=message.duplicate,
            excluded=message.excluded,
            excluded_unmatched=message.excluded_unmatched,
            excluded_labelled=message.excluded_labelled,
            labelled_unmatched=message.labelled_unmatched,
            skipped_examples=tuple(
                SkippedRow(id=row.id, reason=row.reason, detail=row.detail)
                for row in message.skipped_examples
            ),
        )
    except ValueError as error:
        raise ProtocolError(f"the server's {error}", reason="ACCOUNTS_DO_NOT_ADD_UP") from error


def selection(message: selection_pb2.Selection) -> Selection:
    """Return a selection.

    Raises:
        ProtocolError: If its accounts do not add up.
    """
    has_summary = message.HasField("summary")
    return Selection(
        id=message.id,
        request_id=message.request_id,
        state=_STATES_BY_VALUE.get(message.state, SelectionState.UNSPECIFIED),
        model=message.model,
        strategy=message.strategy,
        budget=message.budget,
        pool_uri=message.pool_uri,
        progress=progress(message.progress),
        create_time=_time(message, "create_time"),
        update_time=_time(message, "update_time"),
        end_time=_time(message, "end_time"),
        pick_count=message.summary.pick_count if has_summary else None,
        accounts=accounts(message.summary.accounts) if has_summary else None,
        error_reason=message.error_reason,
        error_message=message.error_message,
    )


def image_scores(
    response: selection_pb2.ScoreImagesResponse, *, expected: int
) -> list[ImageScores | SkippedImage]:
    """Return one outcome per image, in order.

    Raises:
        ProtocolError: If there are more or fewer outcomes than images, or one is neither scored nor skipped.
    """
    if len(response.results) != expected:
        raise ProtocolError(
            f"the server answered {expected} images with {len(response.results)} results",
            reason="RESULTS_INCOMPLETE",
        )
    return [_outcome(result, response.model) for result in response.results]


def server_info(message: selection_pb2.GetServerInfoResponse) -> ServerInfo:
    """Return the description of a server."""
    limits = message.limits
    return ServerInfo(
        version=message.version,
        devices=tuple(message.devices),
        default_model=message.default_model,
        strategies=tuple(message.strategies),
        limits=Limits(
            max_budget=limits.max_budget,
            max_chunk_bytes=limits.max_chunk_bytes,
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_images_per_score_call=limits.max_images_per_score_call,
            max_concurrent_selections=limits.max_concurrent_selections,
            max_chunk_rows=limits.max_chunk_rows,
            max_id_bytes=limits.max_id_bytes,
        ),
    )


def model(message: model_pb2.Model) -> Model:
    """Return the description of a model."""
    bundle = message.bundle
    return Model(
        id=bundle.model_id,
        is_default=message.is_default,
        create_time=_time(bundle, "create_time"),
        method=bundle.method,
        round=bundle.round,
        input=ImageInput.from_message(bundle.input),
        classes=tuple(bundle.classes),
        outputs=tuple(
            ModelOutput(name=output.name, meaning=output.meaning, shape=tuple(output.shape))
            for output in bundle.outputs
        ),
        strategies=tuple(bundle.strategies),
        served_strategies=tuple(message.served_strategies),
        labelled_count=bundle.labelled_count,
        test_accuracy=bundle.test_accuracy if bundle.HasField("test_accuracy") else None,
        seed=bundle.seed,
        configuration=json_format.MessageToDict(bundle.configuration),
        library_versions=dict(bundle.library_versions),
        gates=tuple(
            GateMeasurement(name=gate.name, measured=gate.measured, limit=gate.limit, meaning=gate.meaning)
            for gate in bundle.gates
        ),
        encoder_id=bundle.encoder_id,
        feature_type="float16" if bundle.feature_type == bundle_pb2.FEATURE_TYPE_FLOAT16 else "float32",
    )


def _outcome(result: selection_pb2.ImageScores, model_id: str) -> ImageScores | SkippedImage:
    match result.WhichOneof("outcome"):
        case "scored":
            scored = result.scored
            return ImageScores(
                score=scored.score if scored.HasField("score") else None,
                probabilities=_read_only(scored.probabilities),
                features=_read_only(scored.features) if scored.features else None,
                entropy=scored.entropy,
                model=model_id,
            )
        case "skipped":
            return SkippedImage(reason=result.skipped.reason, detail=result.skipped.detail)
    raise ProtocolError("the server neither scored nor skipped an image", reason="RESULTS_INCOMPLETE")


def _time(message: Message, field: str) -> datetime.datetime | None:
    return getattr(message, field).ToDatetime(datetime.UTC) if message.HasField(field) else None


def _read_only(values: object) -> npt.NDArray[np.float32]:
    array = np.array(values, dtype=np.float32)
    array.flags.writeable = False
    return array
