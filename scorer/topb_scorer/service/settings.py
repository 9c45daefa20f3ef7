"""Define the settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from topb_scorer.engines.local import EngineSettings
from topb_scorer.pools import AllowedRoots
from topb_scorer.scoring.model_logs import KeepFeatures
from topb_scorer.selecting.settings import SelectingSettings


@dataclass(frozen=True)
class ServerSettings:
    """The settings of one server."""

    models: Path
    """The directory that contains the bundles."""
    listen: str = "127.0.0.1:50051"
    """The host:port to listen on; port 0 for any free port."""
    metrics_listen: str = ""
    """The host:port on which to serve metrics over HTTP; port 0 for any free port, empty for no metrics."""
    roots: AllowedRoots = field(default_factory=lambda: AllowedRoots.below(()))
    """The locations from which pools may be read; none by default."""
    engine: EngineSettings = field(default_factory=EngineSettings)
    """The device, batch size, threads and image limits for scoring."""
    selecting: SelectingSettings = field(default_factory=SelectingSettings)
    """The memory limit and the device for selecting from score logs."""
    keep_features: KeepFeatures = "frozen"
    """Of which encoders features are kept that no selection has needed yet: of all ("always"), of those that
    training leaves as they are ("frozen"), or of none ("needed")."""
    default_model: str = ""
    """The model for requests that name none; empty for the most recently created one."""
    grace_seconds: float = 30.0
    """The number of seconds that running selections may continue after SIGTERM."""
    max_concurrent_selections: int = 2
    """The maximum number of selections that run at once."""
    stream_idle_seconds: float = 30.0
    """How long a selection whose pool is streamed waits for the next chunk before it gives its slot to the
    next selection."""
    max_chunk_bytes: int = 8 * 2**20
    """The maximum number of image bytes in a chunk of a streamed pool."""
    max_chunk_rows: int = 16_384
    """The maximum number of images in a chunk of a streamed pool."""
    max_message_bytes: int = 64 * 2**20
    """The maximum size of a request or response. The default allows about three million excluded ids."""
    max_excluded_ids: int = 4_000_000
    """The maximum number of excluded ids in a request; a Parquet file may have more."""
    max_images_per_score_call: int = 256
    """The maximum number of images in a ScoreImages call."""
    state: Path | None = None
    """The state directory, which contains score logs, results and usually the catalog. None for a temporary
    directory that is removed when the server stops."""
    catalog_url: str = ""
    """The SQLAlchemy URL of the catalog; empty for SQLite in the state directory."""
    lease_seconds: float = 15.0
    """The duration of leases. If a server does not renew a lease in time, another server with the same state
    takes over the selection."""
    keep_paused_days: float = 7.0
    """After how many days a selection ends if its caller has left and does not repeat the request."""
    keepalive_seconds: float = 30.0
    """After this time without data from a caller, the server pings the caller. If the answer takes longer
    than 20 s, or than this time if it is shorter, the caller is lost."""
