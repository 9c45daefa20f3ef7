"""Find the logs that a selection fills and reads: of its model's scores, and of its encoder's features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from topb_scorer.bundle import Bundle
from topb_scorer.durable import publish_file
from topb_scorer.scoring.feature_log import FeatureLog
from topb_scorer.scoring.score_log import ScoreLog

SCORES: Literal["scores"] = "scores"
FEATURES: Literal["features"] = "features"
"""The directories of score logs and feature logs in a state directory."""

_ENCODER = "encoder"

KeepFeatures = Literal["always", "frozen", "needed"]
"""Of which encoders features are kept that a selection does not need: of all, of those that later models will
have as well because training leaves them as they are, or of none."""


@dataclass(frozen=True)
class ModelLogs:
    """The score log of a model, and the feature log of its encoder.

    Kept features are used whenever the log holds them, so that images need not be read again.
    """

    scores: ScoreLog
    features: FeatureLog
    needs_features: bool = False
    """Whether the selection reads features, because its strategy is set-based."""
    keeps_features: bool = False
    """Whether features are kept even if the selection does not need them."""

    @property
    def writes_features(self) -> bool:
        """Whether what the encoder computes is committed to the feature log."""
        return self.needs_features or self.keeps_features

    def holds(self, identity: str) -> bool:
        """Return whether the logs hold all that the selection needs of a shard."""
        return self.scores.holds(identity) and (not self.needs_features or self.features.holds(identity))

    def identities(self) -> list[str]:
        """Return the identities of the shards of which the logs hold all that the selection needs, sorted."""
        return [identity for identity in self.scores.identities() if self.holds(identity)]

    def make_durable(self) -> None:
        """Let all committed shards survive a power loss, even if a process died before the end of a commit.

        Raises:
            OSError: a directory cannot be synced.
        """
        self.scores.make_durable()
        self.features.make_durable()

    def discard_altered(self, identities: Iterable[str]) -> None:
        """Remove the shards that are incomplete or altered, so that they are computed again."""
        for identity in identities:
            self.scores.discard_altered([identity])
            if self.needs_features:
                self.features.discard_altered([identity])

    def remove(self) -> None:
        """Remove both logs."""
        self.features.remove()
        self.scores.remove()


def logs_in(
    state: Path, bundle: Bundle, *, needs_features: bool, keep_features: KeepFeatures = "needed"
) -> ModelLogs:
    """Return the logs of all rows that were scored and encoded from pools that can be read again.

    Args:
        state: the state directory.
        bundle: the model.
        needs_features: whether the selection reads features.
        keep_features: when to keep features that the selection does not need.

    Raises:
        OSError: the directory cannot be written to.
    """
    scores = state / SCORES / bundle.model_id
    # Without an encoder, what takes the place of its outputs depends on the model.
    encoder = bundle.encoder_id or bundle.model_id
    if encoder_of(state, bundle.model_id) != encoder:
        publish_file(scores / _ENCODER, lambda path: path.write_text(encoder))
    keeps = keep_features == "always" or (keep_features == "frozen" and bundle.manifest.encoder_frozen)
    return ModelLogs(
        ScoreLog(scores),
        FeatureLog(state / FEATURES / encoder),
        needs_features=needs_features,
        keeps_features=keeps,
    )


def encoder_of(state: Path, model: str) -> str:
    """Return the name of the feature log that a model uses, or an empty string if it was never used here."""
    try:
        return (state / SCORES / model / _ENCODER).read_text()
    except FileNotFoundError:
        return ""


def logs_below(directory: Path, *, needs_features: bool, durable: bool = True) -> ModelLogs:
    """Return logs of one selection only, in a directory of its own."""
    return ModelLogs(
        ScoreLog(directory, durable=durable),
        FeatureLog(directory / FEATURES, durable=durable),
        needs_features=needs_features,
    )
