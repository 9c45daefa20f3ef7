"""What an operator decides about a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from topb_scorer.engines.local import EngineSettings
from topb_scorer.pools import AllowedRoots
from topb_scorer.selecting.settings import SelectingSettings


@dataclass(frozen=True)
class ServerSettings:
    """The settings of one server."""

    models: Path
    """Directory of bundles."""
    listen: str = "127.0.0.1:50051"
    """host:port; port 0 takes a free one."""
    metrics_listen: str = ""
    """host:port of the metrics, over HTTP; port 0 takes a free one; empty: none."""
    roots: AllowedRoots = field(default_factory=lambda: AllowedRoots.below(()))
    """What pools may be read from; nothing by default."""
    engine: EngineSettings = field(default_factory=EngineSettings)
    """How images are scored."""
    selecting: SelectingSettings = field(default_factory=SelectingSettings)
    """Memory and devices of selecting from score logs."""
    default_model: str = ""
    """Model of requests that name none; empty: the most recently created."""
    grace_seconds: float = 30.0
    """How long running selections may go on after SIGTERM."""
    max_concurrent_selections: int = 2
    """More are turned away with a hint when to try again."""
    max_chunk_bytes: int = 8 * 2**20
    """Of image data in one chunk of a streamed pool."""
    max_message_bytes: int = 64 * 2**20
    """Of any request; holds some three million excluded ids."""
    max_images_per_score_call: int = 256
    """Of one ScoreImages call."""
    state: Path | None = None
    """Where score logs, results and selections under way are kept; None: a temporary directory, gone with the
    server."""
    catalog_url: str = ""
    """Of the database of selections, as SQLAlchemy has it; empty: SQLite in the state directory."""
    lease_seconds: float = 15.0
    """How long a server of the same state may be silent before this one takes its selections up."""
