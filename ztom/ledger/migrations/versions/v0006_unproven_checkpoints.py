"""Checkpoints that a search wrote and did not prove to be better keep that mark."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; what is there was published."""
    op.add_column(
        "checkpoints",
        sa.Column("unproven", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
