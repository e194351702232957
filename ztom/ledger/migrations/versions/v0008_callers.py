"""Who brings how much of an endpoint's traffic, and what of it counts in a release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table and the columns; what is there counted whoever it was of."""
    op.create_table(
        "caller_traffic",
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("alias", "day", "caller", name=op.f("pk_caller_traffic")),
    )
    op.add_column("rollouts", sa.Column("callers", sa.JSON(), nullable=True))
    op.add_column("feedback", sa.Column("caller", sa.String(), nullable=True))
    op.add_column(
        "feedback",
        sa.Column("counted", sa.Boolean(), nullable=False, server_default=sa.true()),
    )
