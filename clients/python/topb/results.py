"""What a selection gives back: ranked picks and the accounts of every row of the pool."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclass(frozen=True, slots=True)
class Pick:
    """One image picked from the pool."""

    id: str
    """The id it has in the pool."""
    rank: int
    """1 for the image most worth labelling."""
    score: float
    """The strategy's acquisition score; larger is picked first."""
    predicted_class: int
    """Index into the bundle's classes of the most probable class."""
    probability: float
    """The predicted class's probability."""
    entropy: float
    """Of the predicted distribution, in nats."""
    radius: float | None = None
    """Of core_set and of diversified strategies: the Euclidean distance, in units of the features, to the
    nearest image that was labelled or picked before it; where it flattens out, more picks cover little."""


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of the pool that could not be scored."""

    id: str
    """The id it has in the pool, or the row's position where the id itself is missing."""
    reason: str
    """In UPPER_SNAKE_CASE, such as IMAGE_CORRUPT."""
    detail: str
    """What was wrong with it, for a person."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """What became of each row of the pool: `read = scored + skipped + duplicate + excluded`."""

    read: int = 0
    """Rows read."""
    scored: int = 0
    """Rows that were scored and could be ranked."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Rows that could not be scored, by reason."""
    duplicate: int = 0
    """Rows beyond the first of their id; of rows with one id the best-scored counts."""
    excluded: int = 0
    """Rows left out because their id was excluded."""
    skipped_examples: tuple[SkippedRow, ...] = ()
    """Some of the skipped rows, in the order of their ids, at most 20."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "skipped", MappingProxyType(dict(sorted(self.skipped.items()))))
        if self.read != self.scored + sum(self.skipped.values()) + self.duplicate + self.excluded:
            raise ValueError(f"accounts do not add up: {self}")

    def to_dict(self) -> dict[str, Any]:
        """The accounts as plain lists, dicts, strings and numbers."""
        return {
            "read": self.read,
            "scored": self.scored,
            "skipped": dict(self.skipped),
            "duplicate": self.duplicate,
            "excluded": self.excluded,
            "skipped_examples": [dataclasses.asdict(row) for row in self.skipped_examples],
        }


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """The picks of one selection, in rank order, and how they came about."""

    picks: tuple[Pick, ...]
    """At most `budget` of them, rank 1 first: score descending, then id ascending."""
    accounts: Accounts
    """What became of each row of the pool."""
    model: str
    """Id of the model that scored."""
    strategy: str
    """Name of the query strategy."""
    seed: int
    """What seeded the strategy, if it draws at random."""
    budget: int
    """How many picks were asked for."""
    elapsed_seconds: float
    """Wall-clock time on the side that scored."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """What a set-based or diversified strategy says of the batch, by name: what diversity cost and gained."""
    selection: str = ""
    """The server's id of the selection; empty where it ran in this process."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The picked ids in rank order."""
        return tuple(pick.id for pick in self.picks)

    @property
    def fell_short(self) -> bool:
        """Whether the pool held fewer images that could be ranked than the budget asked for."""
        return len(self.picks) < self.budget

    def to_dict(self) -> dict[str, Any]:
        """The result as plain lists, dicts, strings and numbers."""
        return {
            "selection": self.selection,
            "model": self.model,
            "strategy": self.strategy,
            "seed": self.seed,
            "budget": self.budget,
            "fell_short": self.fell_short,
            "elapsed_seconds": self.elapsed_seconds,
            "accounts": self.accounts.to_dict(),
            "measures": dict(self.measures),
            "picks": [dataclasses.asdict(pick) for pick in self.picks],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """The result as one JSON object; the fields are those of `to_dict`."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_columns(self) -> dict[str, list[Any]]:
        """The picks as columns: id, rank, score, predicted_class, probability, entropy, radius."""
        names = [column.name for column in dataclasses.fields(Pick)]
        return {name: [getattr(pick, name) for pick in self.picks] for name in names}

    def to_arrow(self) -> pyarrow.Table:
        """The picks as a table with the columns of `to_columns`.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
        """
        import pyarrow

        types = {
            "id": pyarrow.string(),
            "rank": pyarrow.int64(),
            "score": pyarrow.float64(),
            "predicted_class": pyarrow.int32(),
            "probability": pyarrow.float32(),
            "entropy": pyarrow.float64(),
            "radius": pyarrow.float64(),
        }
        return pyarrow.table(self.to_columns(), schema=pyarrow.schema(types))

    def to_pandas(self) -> pandas.DataFrame:
        """The picks as a data frame with the columns of `to_columns`.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self.to_columns())
