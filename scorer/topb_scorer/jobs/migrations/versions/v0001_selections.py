"""Create the table of selections as it was in topb 0.1."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table and its index."""
    op.create_table(
        "selections",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("request_id", sa.String(200), nullable=False, unique=True),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("strategy", sa.String(64), nullable=False),
        sa.Column("budget", sa.BigInteger, nullable=False),
        sa.Column("pool_uri", sa.Text, nullable=False),
        sa.Column("detached", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("lease_until", sa.Float(53), nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("read", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("elapsed_seconds", sa.Float(53), nullable=False),
        sa.Column("stream_chunks", sa.BigInteger),
        sa.Column("created", sa.Float(53), nullable=False),
        sa.Column("updated", sa.Float(53), nullable=False),
        sa.Column("ended", sa.Float(53)),
        sa.Column("error_code", sa.String(32), nullable=False),
        sa.Column("error_reason", sa.String(64), nullable=False),
        sa.Column("error_message", sa.Text, nullable=False),
    )
    op.create_index("ix_selections_state", "selections", ["state"])
