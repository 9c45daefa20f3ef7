"""From a request to a selection in the catalog, and from there to a job that a host can run."""

from __future__ import annotations

from topb.v1 import selection_pb2 as pb
from topb_scorer.engines.cache import EngineCache
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import UnreadablePoolError
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.run import Job
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.pools.stream import chunks_without_a_gap
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.selecting.spec import SelectionSpec, check_strategy_served
from topb_scorer.service.settings import ServerSettings
from topb_scorer.service.translate import pool_of, spec_of


class Admission:
    """Reads requests; one that cannot be served is refused before it enters the catalog."""

    def __init__(
        self, settings: ServerSettings, models: ModelCatalog, engines: EngineCache, state: StateDirectory
    ) -> None:
        self._settings = settings
        self._models = models
        self._engines = engines
        self._state = state

    def pool_selection(self, request: pb.SelectBatchRequest) -> tuple[SelectionRecord, Job | None]:
        """The selection that the request asks for, and its job where this call made it."""
        stored = _stored(request)
        found = self._state.catalog.find(request.request_id, stored)
        if found is not None:
            if request.detached and not found.detached:
                self._state.catalog.detach(found.id)
            return found, None
        spec, engine = self._prepare(request.spec, "")
        job = self._pool_job(request, spec, engine)
        return self._create(request.request_id, stored, spec, engine, request.pool.uri, request.detached), job

    def stream_selection(self, start: pb.StreamStart) -> SelectionRecord:
        """The selection of a streamed pool that the start message asks for, or goes on with."""
        stored = pb.StreamStart(spec=start.spec).SerializeToString(deterministic=True)
        found = self._state.catalog.find(start.request_id, stored)
        if found is not None:
            return found
        spec, engine = self._prepare(start.spec, "")
        return self._create(start.request_id, stored, spec, engine, "", detached=False)

    def job_of(self, record: SelectionRecord) -> Job:
        """The job of a selection in the catalog, with the model that it is pinned to."""
        if not record.pool_uri:
            return self.stream_job(record)
        request = pb.SelectBatchRequest.FromString(record.request)
        return self._pool_job(request, *self._prepare(request.spec, record.model))

    def stream_job(self, record: SelectionRecord) -> Job:
        """The job of a streamed selection without any more chunks than its log holds."""
        start = pb.StreamStart.FromString(record.request)
        spec, engine = self._prepare(start.spec, record.model)
        log = self._state.stream_log(record.id, with_features=spec.needs_features)
        if record.stream_chunks is not None:
            held = chunks_without_a_gap(log.identities())
            if held != record.stream_chunks:
                raise UnreadablePoolError(
                    f"the scores of chunk {held} are lost; send the pool under a new request id",
                    reason="STREAM_SCORES_LOST",
                    seq=held,
                )
        return Job(spec, engine, shards=(), log=log, total=0, sent_by_caller=True)

    def _pool_job(self, request: pb.SelectBatchRequest, spec: SelectionSpec, engine: LocalEngine) -> Job:
        pool = pool_of(request.pool, self._settings.roots, self._settings.engine.limits)
        log = self._state.score_log(engine.bundle.model_id, with_features=True)
        if not spec.needs_features and not all(log.holds(shard.identity) for shard in pool.shards):
            log = self._state.score_log(engine.bundle.model_id)
        return Job(spec, engine, pool.shards, log, pool.rows)

    def _prepare(self, message: pb.SelectionSpec, pinned_model: str) -> tuple[SelectionSpec, LocalEngine]:
        spec = spec_of(message, self._settings.roots)
        bundle = self._models.get(pinned_model or message.model)
        check_strategy_served(spec, bundle)
        return spec, self._engines.get(bundle)

    def _create(
        self,
        request_id: str,
        stored: bytes,
        spec: SelectionSpec,
        engine: LocalEngine,
        pool_uri: str,
        detached: bool,
    ) -> SelectionRecord:
        new = NewSelection(
            request_id=request_id,
            request=stored,
            model=engine.bundle.model_id,
            strategy=spec.strategy,
            budget=spec.budget,
            pool_uri=pool_uri,
            detached=detached,
        )
        return self._state.catalog.create(new)


def _stored(request: pb.SelectBatchRequest) -> bytes:
    """What makes two requests the same: all but the id they are repeated by, and whether the caller waits."""
    stored = pb.SelectBatchRequest(spec=request.spec, pool=request.pool)
    return stored.SerializeToString(deterministic=True)
