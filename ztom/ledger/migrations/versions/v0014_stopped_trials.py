"""Trials that were stopped early say how many stimuli they answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column; every trial up to now answered all."""
    op.add_column("trials", sa.Column("answered", sa.Integer(), nullable=True))
