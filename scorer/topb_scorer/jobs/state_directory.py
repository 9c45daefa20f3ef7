"""Open the directory that outlives servers: scores, features, requests, results and usually the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topb_scorer.bundle import Bundle
from topb_scorer.durable import make_directory, publish_file, remove_directory
from topb_scorer.errors import NotFoundError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.identifiers import new_selection_id
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.requests import LARGE_REQUEST, RequestStore
from topb_scorer.jobs.results import ResultStore
from topb_scorer.scoring.layout import LAYOUT_VERSION, VERSION_FILE, checked_version
from topb_scorer.scoring.model_logs import SCORES, KeepFeatures, ModelLogs, logs_below, logs_in

_SQLITE_FILE = "selections.sqlite"


@dataclass(frozen=True)
class StateDirectory:
    """One state directory and its catalog, shared by any number of servers."""

    path: Path
    catalog: SelectionCatalog
    results: ResultStore
    requests: RequestStore

    @classmethod
    def open(cls, path: Path, catalog_url: str = "") -> StateDirectory:
        """Open the state directory at `path`, and create what is missing in it.

        Args:
            path: the directory. If several servers use it, it is on a file system that they share.
            catalog_url: the SQLAlchemy URL of the catalog; empty for SQLite in the directory.

        Raises:
            NewerVersionError: a newer version of topb wrote the directory or the catalog.
            OSError: the directory cannot be written to.
            UnavailableError: the database cannot be reached or written to.
        """
        make_directory(path)
        if checked_version(path) < LAYOUT_VERSION:
            publish_file(path / VERSION_FILE, lambda file: file.write_text(f"{LAYOUT_VERSION}\n"))
        catalog = SelectionCatalog(catalog_url or _sqlite_url(path))
        return cls(path, catalog, results_of(path), requests_of(path))

    def create(self, new: NewSelection) -> SelectionRecord:
        """Create a selection durably, or return the existing one with the same request id.

        Raises:
            InvalidRequestError: the request id belongs to a different request or is invalid.
        """
        if len(new.request) <= LARGE_REQUEST:
            return self.catalog.create(new)
        id_ = new_selection_id()
        # The file comes first. If the process dies in between, `topb results prune` removes it.
        self.requests.write(id_, new.request)
        record = self.catalog.create(new, id_, request_in_file=True)
        if record.id != id_:
            self.requests.remove(id_)
        return record

    def request_of(self, record: SelectionRecord) -> bytes:
        """Return the serialized request of a selection.

        Raises:
            NotFoundError: the request was stored in a file, which is missing or was altered.
        """
        return self.catalog.request(record.id) or self.requests.read(record)

    def model_logs(
        self, bundle: Bundle, *, needs_features: bool, keep_features: KeepFeatures = "needed"
    ) -> ModelLogs:
        """Return the logs of a model for pools that the servers read. `logs_in` describes the arguments."""
        return logs_in(self.path, bundle, needs_features=needs_features, keep_features=keep_features)

    def stream_logs(self, selection: str, *, needs_features: bool) -> ModelLogs:
        """Return the logs of a selection whose pool is sent by the caller.

        They end with the selection, so they have features only if its strategy is set-based.
        """
        return logs_below(_stream_directory(self.path, selection), needs_features=needs_features)


def results_of(path: Path) -> ResultStore:
    """Return the result store of the state directory at `path`."""
    return ResultStore(path / "results")


def requests_of(path: Path) -> RequestStore:
    """Return the store of large requests of the state directory at `path`."""
    return RequestStore(path / "requests")


def remove_stream(path: Path, selection: str) -> None:
    """Remove the logs of a selection whose pool was sent by the caller."""
    remove_directory(_stream_directory(path, selection))


def check_state(path: Path) -> None:
    """Check that there is a state directory at `path` that this version of topb can use.

    Raises:
        NotFoundError: there is no such directory.
        NewerVersionError: a newer version of topb wrote it.
    """
    if not path.is_dir():
        raise NotFoundError(
            f"there is no state directory {path}; give the --state directory of the servers",
            reason="STATE_NOT_FOUND",
            path=path,
        )
    checked_version(path)


def was_served(path: Path, catalog_url: str) -> bool:
    """Return whether servers may have used a state directory. Selections in process leave only their logs."""
    if catalog_url or not (path / SCORES).is_dir():
        return True
    return any((path / name).is_file() for name in (VERSION_FILE, _SQLITE_FILE))


def existing_catalog(path: Path, catalog_url: str) -> SelectionCatalog:
    """Open the catalog of a state directory that servers have used. Never create one in the directory.

    Raises:
        NotFoundError: the directory holds no catalog and no URL is given.
        NewerVersionError: a newer version of topb has upgraded the catalog.
        UnavailableError: the database cannot be reached.
    """
    if not catalog_url and not (path / _SQLITE_FILE).is_file():
        raise NotFoundError(
            f"{path} contains no catalog: use --catalog-url with the same URL as the servers",
            reason="CATALOG_NOT_FOUND",
        )
    return SelectionCatalog(catalog_url or _sqlite_url(path))


def _sqlite_url(path: Path) -> str:
    return f"sqlite:///{(path / _SQLITE_FILE).resolve()}"


def _stream_directory(path: Path, selection: str) -> Path:
    return path / "streams" / selection
