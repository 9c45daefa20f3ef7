"""Admit requests: check them, enter them into the catalog, and open the jobs that run them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from topb.v1 import selection_pb2 as pb
from topb_scorer.bundle import Bundle
from topb_scorer.engines.cache import EngineCache
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.run import Job, PoolJob, StreamJob
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.pools import open_pool, read_exclusion
from topb_scorer.pools.stream import chunks_without_a_gap
from topb_scorer.pools.vectors import VectorLayout
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.scoring.no_model import NO_MODEL
from topb_scorer.selecting.serving import check_no_model_needed, check_strategy_served, scored_by
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.service.settings import ServerSettings
from topb_scorer.service.translate import differing_fields, excluded_images, pool_of, spec_of


class _Admitted(NamedTuple):
    spec: SelectionSpec
    engine: LocalEngine


@dataclass(frozen=True)
class Admission:
    """Turns requests into selections.

    If a request cannot be served, ScorerError is raised and the catalog does not change.
    """

    settings: ServerSettings
    models: ModelCatalog
    engines: EngineCache
    state: StateDirectory

    def pool_selection(self, request: pb.SelectBatchRequest) -> tuple[SelectionRecord, PoolJob | None]:
        """Return the selection for a request, and its job if this call created the selection."""
        # Requests that differ only in the request id or in `detached` are the same.
        content = _serialized(pb.SelectBatchRequest(spec=request.spec, pool=request.pool))
        found = self._known(request.request_id, content)
        if found is not None:
            if request.detached and not found.detached:
                self.state.catalog.detach(found.id)
            return found, None
        job = self._pool_job(request, request.spec.model)
        record = self._create(
            request.request_id, content, job, pool_uri=request.pool.uri, detached=request.detached
        )
        return record, job

    def stream_selection(self, start: pb.StreamStart) -> SelectionRecord:
        """Return the selection for a start message, which an earlier call may have created."""
        # Its serialization is that of a SelectBatchRequest with the same spec.
        content = _serialized(pb.StreamStart(spec=start.spec, vectors=_declared(start)))
        found = self._known(start.request_id, content)
        if found is not None:
            return found
        return self._create(start.request_id, content, self._stream_admitted(start, start.spec.model))

    def job_of(self, record: SelectionRecord) -> Job:
        """Return the job of a selection in the catalog. It uses the model that is stored in the record.

        Raises:
            ScorerError: the pool, the model or chunks of the selection are not available any more.
        """
        if not record.pool_uri:
            return self.stream_job(record)
        request = pb.SelectBatchRequest.FromString(self.state.request_of(record))
        return self._pool_job(request, record.model)

    def stream_job(self, record: SelectionRecord) -> StreamJob:
        """Return the job of a streamed selection. It contains only the chunks that are in the logs.

        Raises:
            UnreadablePoolError: the pool was complete, but some of its scores are lost.
        """
        start = pb.StreamStart.FromString(self.state.request_of(record))
        spec, engine = self._stream_admitted(start, record.model)
        logs = self.state.stream_logs(record.id, needs_features=spec.needs_features)
        if record.stream_chunks is not None:
            held = chunks_without_a_gap(logs.identities())
            if held != record.stream_chunks:
                raise UnreadablePoolError(
                    f"the scores of chunk {held} are lost; send the pool with a new request id",
                    reason="STREAM_SCORES_LOST",
                    seq=held,
                )
        return StreamJob(spec, engine, logs)

    def _known(self, request_id: str, content: bytes) -> SelectionRecord | None:
        try:
            return self.state.catalog.find(request_id, content)
        except InvalidRequestError as error:
            if error.reason != "REQUEST_ID_REUSED":
                raise
            record = self.state.catalog.get(error.metadata["selection"])
            stored = pb.SelectBatchRequest.FromString(self.state.request_of(record))
            # Only a stream has declared sizes of vectors, which are no field of this message.
            sent = pb.SelectBatchRequest.FromString(content)
            differing = ", ".join(differing_fields(sent, stored) or ["vectors"])
            raise InvalidRequestError(
                f"request id {request_id!r} belongs to a request with another {differing}; "
                "use a new request id",
                reason=error.reason,
                differing=differing,
                request_id=request_id,
                selection=record.id,
            ) from None

    def _pool_job(self, request: pb.SelectBatchRequest, model: str) -> PoolJob:
        spec = self._spec(request.spec)
        bundle = self._bundle(spec, model)
        pool = open_pool(pool_of(request.pool), roots=self.settings.roots, limits=self.settings.engine.limits)
        engine = self.engines.get(scored_by(bundle, spec, pool.vectors))
        logs = self.state.model_logs(
            engine.bundle, needs_features=spec.needs_features, keep_features=self.settings.keep_features
        )
        return PoolJob(spec, engine, logs, pool.shards)

    def _stream_admitted(self, start: pb.StreamStart, model: str) -> _Admitted:
        spec = self._spec(start.spec)
        bundle = self._bundle(spec, model)
        if bundle is None:
            declared = _declared(start)
            layout = None if declared is None else VectorLayout(declared.width, declared.classes)
            bundle = scored_by(None, spec, layout)
        return _Admitted(spec, self.engines.get(bundle))

    def _bundle(self, spec: SelectionSpec, model: str) -> Bundle | None:
        """Return the model for a request, or None if the request asks for none."""
        if model == NO_MODEL:
            check_no_model_needed(spec)
            return None
        bundle = self.models.get(model)
        check_strategy_served(spec, bundle)
        return bundle

    def _spec(self, message: pb.SelectionSpec) -> SelectionSpec:
        exclude = excluded_images(message.exclude)
        if message.exclude.uri:
            column = message.exclude.column or "id"
            exclude = exclude.updated(read_exclusion(message.exclude.uri, column, self.settings.roots))
        return spec_of(message, exclude)

    def _create(
        self,
        request_id: str,
        content: bytes,
        admitted: PoolJob | _Admitted,
        *,
        pool_uri: str = "",
        detached: bool = False,
    ) -> SelectionRecord:
        new = NewSelection(
            request_id=request_id,
            request=content,
            model=admitted.engine.bundle.model_id,
            strategy=admitted.spec.strategy,
            budget=admitted.spec.budget,
            pool_uri=pool_uri,
            detached=detached,
        )
        return self.state.create(new)


def _declared(start: pb.StreamStart) -> pb.VectorLayout | None:
    return start.vectors if start.HasField("vectors") else None


def _serialized(content: pb.SelectBatchRequest | pb.StreamStart) -> bytes:
    return content.SerializeToString(deterministic=True)
