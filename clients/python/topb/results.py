"""The result of a selection: its picks, and row counts by outcome."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclass(frozen=True, slots=True)
class Pick:
    """One image picked from the pool."""

    id: str
    """Its id in the pool."""
    rank: int
    """1 for the image that is most worth labelling."""
    score: float
    """Acquisition score. Pointwise strategies pick images with larger scores first. For a set-based strategy,
    it is what the strategy measured when it picked the image, such as the distance to earlier picks."""
    predicted_class: int
    """Index of the most probable class in `Model.classes`; -1 if the model has no classifier."""
    probability: float
    """Probability of the predicted class; 0 if the model has no classifier."""
    entropy: float
    """Entropy of the predicted distribution, in nats."""
    radius: float | None = None
    """Euclidean distance in feature space to the nearest image that was labelled or picked before this one.
    Only core_set and diversified strategies set it. When it flattens out, more picks add little coverage."""
    predicted_class_name: str = ""
    """Name of the predicted class, or empty if the server did not say. The index of a class may differ from
    model to model; its name does not."""


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of the pool that could not be scored."""

    id: str
    """Its id in the pool, or the row's position if the id is missing."""
    reason: str
    """Why it was skipped, in UPPER_SNAKE_CASE, such as IMAGE_CORRUPT."""
    detail: str
    """Why it was skipped, in words."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Row counts by outcome: `read = scored + skipped + duplicate + excluded`."""

    read: int = 0
    """Rows read."""
    scored: int = 0
    """Rows that were scored and could be ranked."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that could not be scored, by reason."""
    duplicate: int = 0
    """Rows with a repeated id. Of the rows with one id, only the one with the best score counts as scored."""
    excluded: int = 0
    """Rows that were excluded by their id or by their content."""
    skipped_examples: tuple[SkippedRow, ...] = ()
    """At most 20 of the skipped rows, ordered by id."""
    excluded_unmatched: int = 0
    """How many of the images that the request excludes are not in the pool, neither by id nor by content."""
    excluded_labelled: int = 0
    """Of the excluded rows, those that the model was trained on."""
    labelled_unmatched: int = 0
    """How many of the images that the model was trained on are not in the pool, by id or by content."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "skipped", MappingProxyType(dict(sorted(self.skipped.items()))))
        if self.read != self.scored + sum(self.skipped.values()) + self.duplicate + self.excluded:
            raise ValueError(f"accounts do not add up: {self}")

    def to_dict(self) -> dict[str, Any]:
        """Return the accounts as plain lists, dicts, strings and numbers."""
        return {
            "read": self.read,
            "scored": self.scored,
            "skipped": dict(self.skipped),
            "duplicate": self.duplicate,
            "excluded": self.excluded,
            "excluded_unmatched": self.excluded_unmatched,
            "excluded_labelled": self.excluded_labelled,
            "labelled_unmatched": self.labelled_unmatched,
            "skipped_examples": [dataclasses.asdict(row) for row in self.skipped_examples],
        }


@dataclass(frozen=True, slots=True, repr=False)
class SelectionResult(Sequence[Pick]):
    """The picks of one selection in rank order, and how they were made. It is a sequence of its picks."""

    picks: tuple[Pick, ...]
    """At most `budget` picks in rank order. Pointwise strategies rank by descending score, then by id."""
    accounts: Accounts
    """Row counts by outcome."""
    model: str
    """Id of the model that scored the pool."""
    strategy: str
    """Name of the query strategy."""
    seed: int
    """Seed of the strategy, if it draws at random."""
    budget: int
    """Number of picks requested."""
    elapsed_seconds: float
    """Wall-clock time in seconds, measured by the scorer."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Measures of the whole batch by name, from set-based and diversified strategies."""
    selection: str = ""
    """The server's id of the selection, or empty if it ran in this process."""
    pool: str = ""
    """URI of the pool, or empty if the caller sent it."""
    request_id: str = ""
    """The caller's id of the request, or empty if the selection ran in this process."""

    def __len__(self) -> int:
        return len(self.picks)

    @overload
    def __getitem__(self, index: int) -> Pick: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Pick, ...]: ...

    def __getitem__(self, index: int | slice) -> Pick | tuple[Pick, ...]:
        return self.picks[index]

    def __repr__(self) -> str:
        origin = ", ".join(f"{name}={value!r}" for name, value in self.provenance.items() if value != "")
        shown = ", ".join(map(repr, self.ids[:3])) + (", …" if len(self) > 3 else "")
        return f"<{type(self).__name__} of {len(self)} picks ({shown}): {origin}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the picks in rank order."""
        return tuple(pick.id for pick in self.picks)

    @property
    def fell_short(self) -> bool:
        """Whether the pool had fewer rankable images than the budget."""
        return len(self.picks) < self.budget

    @property
    def provenance(self) -> dict[str, str | int]:
        """Where the picks come from: model, strategy, seed, pool and request_id. Every file has it."""
        names = ("model", "strategy", "seed", "pool", "request_id")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain lists, dicts, strings and numbers."""
        return {
            "selection": self.selection,
            **self.provenance,
            "budget": self.budget,
            "fell_short": self.fell_short,
            "elapsed_seconds": self.elapsed_seconds,
            "accounts": self.accounts.to_dict(),
            "measures": dict(self.measures),
            "picks": [dataclasses.asdict(pick) for pick in self.picks],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the result as a JSON object with the fields of `to_dict`."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the picks as columns with the names of the fields of `Pick`."""
        names = [column.name for column in dataclasses.fields(Pick)]
        return {name: [getattr(pick, name) for pick in self.picks] for name in names}

    def to_arrow(self) -> pyarrow.Table:
        """Return the picks as a table with the columns of `to_columns`.

        The schema's metadata has the `provenance` as JSON under the key `topb.provenance`.

        Raises:
            ModuleNotFoundError: If pyarrow is not installed.
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
            "predicted_class_name": pyarrow.string(),
        }
        metadata = {"topb.provenance": json.dumps(self.provenance)}
        return pyarrow.table(self.to_columns(), schema=pyarrow.schema(types, metadata))

    def to_pandas(self) -> pandas.DataFrame:
        """Return the picks as a data frame with the columns of `to_columns` and the `provenance` as `attrs`.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        import pandas

        frame = pandas.DataFrame(self.to_columns())
        frame.attrs.update(self.provenance)
        return frame
