"""Where a server keeps what must outlive it: score logs, results, streams under way, the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topb_scorer.result_store import ResultStore
from topb_scorer.score_log import ScoreLog
from topb_scorer.selection_catalog import SelectionCatalog


@dataclass(frozen=True)
class State:
    """One state directory and its catalog, shared by any number of servers."""

    directory: Path
    catalog: SelectionCatalog
    results: ResultStore

    @classmethod
    def open(cls, directory: Path, catalog_url: str = "") -> State:
        """Opens the state in `directory`, and makes what is not there yet.

        Args:
            directory: on a file system that all servers of this state share.
            catalog_url: of SQLAlchemy; empty: SQLite in the directory.

        Raises:
            OSError: the directory cannot be written to.
            UnavailableError: the database cannot be reached or written to.
        """
        directory.mkdir(parents=True, exist_ok=True)
        catalog = SelectionCatalog(catalog_url_of(directory, catalog_url))
        return cls(directory, catalog, ResultStore(directory / "results"))

    def score_log(self, model_id: str, *, with_features: bool = False) -> ScoreLog:
        """The log of all that the model scored from pools that servers read; one with features beside it."""
        name = f"{model_id}+features" if with_features else model_id
        return ScoreLog(self.directory / "scores" / name, with_features=with_features)

    def stream_log(self, selection: str, *, with_features: bool = False) -> ScoreLog:
        """The log of a pool that a caller sends, of that selection alone."""
        return ScoreLog(self.directory / "streams" / selection, with_features=with_features)


def catalog_url_of(directory: Path, catalog_url: str = "") -> str:
    """The URL of a state's catalog: the one that is given, or of SQLite in the directory."""
    return catalog_url or f"sqlite:///{sqlite_catalog(directory).resolve()}"


def sqlite_catalog(directory: Path) -> Path:
    """Where a state keeps its catalog if no other is given."""
    return directory / "selections.sqlite"
