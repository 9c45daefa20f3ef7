"""Create the catalog's schema, and upgrade a catalog that an older version of topb created.

Each file in `versions/` is one revision. To change the schema, add the next revision there and change the
table in `topb_scorer.jobs.schema` to match; a test compares the two. During an upgrade, servers of the
previous version may still run: a revision must keep every column that they use and give new ones defaults.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ProgrammingError

from topb_scorer.errors import NewerVersionError, UnavailableError

VERSION_TABLE = "selections_version"
"""The table with the revision of the schema. Other applications in the same database may use alembic's
default name."""

_FIRST = "0001"
_SCRIPTS = Path(__file__).parent

_log = logging.getLogger(__name__)

# alembic keeps the current migration in module-level proxies, so threads must not run two at once.
_one_at_a_time = threading.Lock()


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the latest revision, in the connection's transaction.

    The caller ensures that no other process upgrades the same database at the same time.

    Raises:
        NewerVersionError: the schema has a revision that this version of topb does not know.
        UnavailableError: the database user may not change the schema.
    """
    try:
        _upgrade(connection)
    except ProgrammingError as error:
        raise UnavailableError(
            f"the catalog's schema cannot be created or upgraded: {error.orig}; the database user must "
            "own the database or have CREATE on the schema",
            reason="CATALOG_UNAVAILABLE",
        ) from error


def _upgrade(connection: sa.Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    scripts = ScriptDirectory(_SCRIPTS)
    latest = scripts.get_current_head()
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    current = context.get_current_revision()
    if current is None and sa.inspect(connection).has_table("selections"):
        # This catalog was created before schemas had revisions.
        context.stamp(scripts, _FIRST)
        current = _FIRST
    if current == latest:
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise NewerVersionError(
            f"the catalog has schema revision {current}, but this version of topb only knows revisions up "
            f"to {latest}: use the version of topb that upgraded the catalog, or a newer one",
            reason="CATALOG_VERSION",
            found=current,
            known=latest,
        )
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")
    _log.info("the catalog's schema is now at revision %s (before: %s)", latest, current or "none")
