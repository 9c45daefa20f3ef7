"""Where a server keeps what must outlive it: score logs, results, streams under way, the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topb_scorer.durable import remove_directory
from topb_scorer.errors import NotFoundError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.results import ResultStore
from topb_scorer.scoring.score_log import ScoreLog


@dataclass(frozen=True)
class StateDirectory:
    """One state directory and its catalog, shared by any number of servers."""

    path: Path
    catalog: SelectionCatalog
    results: ResultStore

    @classmethod
    def open(cls, path: Path, catalog_url: str = "") -> StateDirectory:
        """Open the state directory at `path` and create what it does not hold yet.

        Args:
            path: a directory on a file system that all servers of this state share.
            catalog_url: SQLAlchemy URL of the catalog; empty for SQLite in the directory.

        Raises:
            OSError: the directory cannot be written to.
            UnavailableError: the database cannot be reached or written to.
        """
        path.mkdir(parents=True, exist_ok=True)
        catalog = SelectionCatalog(catalog_url_of(path, catalog_url))
        return cls(path, catalog, results_of(path))

    def score_log(self, model_id: str, *, with_features: bool = False) -> ScoreLog:
        """The log of all that the model scored from pools that servers read; one with features beside it."""
        name = f"{model_id}+features" if with_features else model_id
        return ScoreLog(self.path / "scores" / name, with_features=with_features)

    def stream_log(self, selection: str, *, with_features: bool = False) -> ScoreLog:
        """The log of a pool that a caller sends, of that selection alone."""
        return ScoreLog(_stream_directory(self.path, selection), with_features=with_features)


def results_of(directory: Path) -> ResultStore:
    """The results of the state in `directory`."""
    return ResultStore(directory / "results")


def remove_stream(directory: Path, selection: str) -> None:
    """Removes what is left of a pool that a caller sent for a selection that has ended."""
    remove_directory(_stream_directory(directory, selection))


def check_state(directory: Path) -> None:
    """Returns if there is a state in `directory`.

    Raises:
        NotFoundError: there is none.
    """
    if not directory.is_dir():
        raise NotFoundError(
            f"there is no state directory {directory}", reason="STATE_NOT_FOUND", path=directory
        )


def existing_catalog(directory: Path, catalog_url: str) -> SelectionCatalog:
    """The catalog of a state that servers have made; nothing is made where there is none.

    Raises:
        NotFoundError: the state has none of its own, and no other is named.
        UnavailableError: the database cannot be reached.
    """
    if not catalog_url and not sqlite_catalog(directory).is_file():
        raise NotFoundError(
            f"{directory} has no catalog of its own: name its servers' one with --catalog-url",
            reason="CATALOG_NOT_FOUND",
        )
    return SelectionCatalog(catalog_url_of(directory, catalog_url))


def catalog_url_of(directory: Path, catalog_url: str = "") -> str:
    """The URL of a state's catalog: the one that is given, or of SQLite in the directory."""
    return catalog_url or f"sqlite:///{sqlite_catalog(directory).resolve()}"


def _stream_directory(directory: Path, selection: str) -> Path:
    return directory / "streams" / selection


def sqlite_catalog(directory: Path) -> Path:
    """Where a state keeps its catalog if no other is given."""
    return directory / "selections.sqlite"
