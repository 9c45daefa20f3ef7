"""The settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from topb_scorer.engines.local import EngineSettings
from topb_scorer.pools import AllowedRoots
from topb_scorer.selecting.settings import SelectingSettings


@dataclass(frozen=True)
class ServerSettings:
    """What an operator decides about one server."""

    models: Path
    """Directory that holds the bundles."""
    listen: str = "127.0.0.1:50051"
    """host:port to listen on; port 0 takes a free one."""
    metrics_listen: str = ""
    """host:port on which metrics are served over HTTP; port 0 takes a free one; empty serves none."""
    roots: AllowedRoots = field(default_factory=lambda: AllowedRoots.below(()))
    """Where pools may be read from. By default nowhere."""
    engine: EngineSettings = field(default_factory=EngineSettings)
    """Device, batches and limits of scoring."""
    selecting: SelectingSettings = field(default_factory=SelectingSettings)
    """Memory and devices of selecting from score logs."""
    default_model: str = ""
    """Model of requests that name none; empty for the most recently created."""
    grace_seconds: float = 30.0
    """How long running selections may continue after SIGTERM."""
    max_concurrent_selections: int = 2
    """How many selections may run at once."""
    max_chunk_bytes: int = 8 * 2**20
    """Limit of image bytes in one chunk of a streamed pool."""
    max_message_bytes: int = 64 * 2**20
    """Limit of a request or response. It leaves room for some three million excluded ids."""
    max_images_per_score_call: int = 256
    """Limit of images in one ScoreImages call."""
    state: Path | None = None
    """State directory: score logs, results and the selections that are not finished. None for a temporary
    directory that is removed when the server stops."""
    catalog_url: str = ""
    """SQLAlchemy URL of the catalog; empty for SQLite in the state directory."""
    lease_seconds: float = 15.0
    """How long another server of the same state may be silent before this one takes over its selections."""
