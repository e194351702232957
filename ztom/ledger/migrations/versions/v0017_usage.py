"""Who used how much of which variant, by day, and the processes that count it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Make the tables; what was used before is not known."""
    op.create_table(
        "counters",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("began", sa.String(), nullable=False),
        sa.Column("seen", sa.String(), nullable=False),
        sa.Column("ended", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_counters")),
    )
    op.create_index(op.f("ix_counters_seen"), "counters", ["seen"])
    op.create_table(
        "usage",
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("busy_s", sa.Double(), nullable=False),
        sa.Column("idle_s", sa.Double(), nullable=False),
        sa.Column("held_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("day", "key_id", "project_id", "digest", name=op.f("pk_usage")),
    )
