"""topb.v1.ModelService."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from topb.v1 import model_pb2 as pb
from topb.v1 import model_pb2_grpc
from topb_scorer.errors import InvalidRequestError, NotFoundError
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.service.errors import Context, abort
from topb_scorer.service.translate import model_message

_PAGE_SIZE = 100
_MAX_PAGE_SIZE = 1000


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Answers from the catalog."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog

    async def ListModels(  # noqa: N802 - the contract's name
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """A page of models, by id."""
        try:
            return await asyncio.to_thread(self._page, request)
        except Exception as error:
            await abort(context, error)

    async def GetModel(  # noqa: N802 - the contract's name
        self, request: pb.GetModelRequest, context: Context
    ) -> pb.GetModelResponse:
        """One model."""
        try:
            bundle = await asyncio.to_thread(self._catalog.get, request.model)
            default_id = await asyncio.to_thread(self._catalog.default_id)
            return pb.GetModelResponse(model=model_message(bundle, default_id))
        except Exception as error:
            await abort(context, error)

    def _page(self, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        if request.page_size < 0:
            raise InvalidRequestError(
                f"page size {request.page_size}; expected 0 or more", reason="PAGE_SIZE_NEGATIVE"
            )
        size = min(request.page_size or _PAGE_SIZE, _MAX_PAGE_SIZE)
        # A page token is the last model id of the page before: models may come and go between pages.
        after = [bundle for bundle in self._catalog.bundles() if bundle.model_id > request.page_token]
        default_id = ""
        with suppress(NotFoundError):
            default_id = self._catalog.default_id()
        page = after[:size]
        return pb.ListModelsResponse(
            models=[model_message(bundle, default_id) for bundle in page],
            next_page_token=page[-1].model_id if len(after) > size else "",
        )
