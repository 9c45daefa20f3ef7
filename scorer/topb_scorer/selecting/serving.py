"""Check that a model, or a pool of vectors without a model, can serve a selection."""

from __future__ import annotations

from topb_scorer.bundle import Bundle
from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.vectors import VectorLayout
from topb_scorer.scoring.model_session import model_without_encoder
from topb_scorer.scoring.no_model import NoModel
from topb_scorer.scoring.vector_rows import check_vectors_fit
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import served_by


def scored_by(bundle: Bundle | None, spec: SelectionSpec, vectors: VectorLayout | None) -> Bundle:
    """Return the bundle that scores a pool, and check that it can.

    Args:
        bundle: the model; None for none, which requires a pool of vectors.
        spec: the description of what to select.
        vectors: the sizes of the rows of a pool of vectors; None for a pool of images.

    Raises:
        InvalidRequestError: the model cannot score such a pool (MODEL_WITHOUT_ENCODER, VECTOR_WIDTH or
            IMAGES_NEEDED), there is none (MODEL_NEEDED), or the pool lacks probabilities
            (STRATEGY_NOT_SERVED).
    """
    if vectors is None:
        if bundle is None:
            raise InvalidRequestError(
                "selecting images needs a model; give one (topb select: --bundle or --server), or a pool of "
                "vectors, with their sizes if they are streamed",
                reason="MODEL_NEEDED",
            )
        if bundle.encoder is None:
            raise model_without_encoder(bundle)
        return bundle
    if bundle is None:
        bundle = NoModel.with_outputs_of(vectors)
        check_strategy_served(spec, bundle)
    check_vectors_fit(bundle, vectors)
    return bundle


def check_no_model_needed(spec: SelectionSpec) -> None:
    """Raise InvalidRequestError with reason MODEL_NEEDED if the strategy cannot be served without a model."""
    strategies = served_by(frozenset(), {"features", "probabilities"})
    if spec.strategy not in strategies:
        raise InvalidRequestError(
            f"strategy {spec.strategy!r} needs a model; give one (topb select: --bundle or --server), or "
            f"select from a pool of vectors with one of {', '.join(sorted(strategies))}",
            reason="MODEL_NEEDED",
            strategy=spec.strategy,
        )


def check_strategy_served(spec: SelectionSpec, bundle: Bundle) -> None:
    """Raise InvalidRequestError with reason STRATEGY_NOT_SERVED if the model cannot serve the strategy."""
    allowed = sorted(served_by(bundle.strategies, bundle.output_shapes))
    if spec.strategy in allowed:
        return
    subject = f"model {bundle.model_id}"
    if isinstance(bundle, NoModel):
        lacking = sorted(spec.query_strategy.needs - bundle.output_shapes.keys())
        subject = f"without a model, a pool of vectors without {' and '.join(lacking)}"
    raise InvalidRequestError(
        f"{subject} cannot serve strategy {spec.strategy!r}; choose one of {', '.join(allowed)}",
        reason="STRATEGY_NOT_SERVED",
        strategy=spec.strategy,
        model=bundle.model_id,
    )
