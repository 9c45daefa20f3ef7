"""Implement topb.v1.ModelService."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from topb.v1 import model_pb2 as pb
from topb.v1 import model_pb2_grpc
from topb_scorer.errors import NotFoundError
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.service.interceptors import Context
from topb_scorer.service.paging import page_size
from topb_scorer.service.translate import model_message


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Describes the models that this server serves."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        return await asyncio.to_thread(self._page, request)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        bundle = await asyncio.to_thread(self._catalog.get, request.model)
        default_id = await asyncio.to_thread(self._catalog.default_id)
        return pb.GetModelResponse(model=model_message(bundle, default_id))

    def _page(self, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        size = page_size(request.page_size, default=100, maximum=1000)
        # The page token is the last model id of the previous page, because models may be added or removed.
        after = [bundle for bundle in self._catalog.bundles() if bundle.model_id > request.page_token]
        default_id = ""
        with suppress(NotFoundError):
            default_id = self._catalog.default_id()
        page = after[:size]
        return pb.ListModelsResponse(
            models=[model_message(bundle, default_id) for bundle in page],
            next_page_token=page[-1].model_id if len(after) > size else "",
        )
