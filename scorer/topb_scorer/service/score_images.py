"""Score the images of a single request."""

from __future__ import annotations

import threading

import numpy as np

from topb.v1 import selection_pb2 as pb
from topb_scorer import imaging
from topb_scorer.cancellation import check_of, checked
from topb_scorer.engines.cache import EngineCache
from topb_scorer.errors import LimitExceededError
from topb_scorer.scoring.encoded_rows import Skip
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.scoring.scored_rows import scored_rows
from topb_scorer.service.settings import ServerSettings


def score_images(
    request: pb.ScoreImagesRequest,
    models: ModelCatalog,
    engines: EngineCache,
    settings: ServerSettings,
    cancelled: threading.Event,
) -> pb.ScoreImagesResponse:
    """Score images with the code that scores pools.

    Setting `cancelled` stops the work within one image or one batch.

    Raises:
        LimitExceededError: there are more images than one call may contain.
        InvalidRequestError: the model has no encoder.
        NotFoundError: there is no such model.
        SelectionCancelledError: `cancelled` was set.
    """
    limit = settings.max_images_per_score_call
    if len(request.images) > limit:
        raise LimitExceededError(
            f"the request has {len(request.images)} images; the limit is {limit}: use SelectBatch for more",
            reason="TOO_MANY_IMAGES",
        )
    engine = engines.get(models.get(request.model))
    target, limits = engine.bundle.input, settings.engine.limits
    size = engine.session.encoder.input_shapes["images"]
    images = np.zeros((len(request.images), *size), np.uint8)
    skips: dict[int, Skip] = {}
    check = check_of(cancelled)
    for row, encoded in enumerate(checked(request.images, check)):
        try:
            images[row] = imaging.load(encoded, target, limits, budget=engine.budget, check=check)
        except imaging.SkippedImageError as error:
            skips[row] = Skip(error.reason, error.detail)
    outputs = engine.session.score(images, check=check)
    rows = scored_rows([str(row) for row in range(len(images))], outputs, skips)
    response = pb.ScoreImagesResponse(model=engine.bundle.model_id)
    for row in range(len(images)):
        if row in rows.skips:
            skip = rows.skips[row]
            response.results.add(skipped=pb.ImageScores.Skipped(reason=skip.reason, detail=skip.detail))
            continue
        scored = pb.ImageScores.Scored(
            score=float(rows.score[row]) if "score" in outputs else None,
            probabilities=outputs["probabilities"][row].tolist() if "probabilities" in outputs else [],
            features=outputs["features"][row].tolist() if request.include_features else [],
            entropy=float(rows.entropy[row]),
        )
        response.results.add(scored=scored)
    return response
