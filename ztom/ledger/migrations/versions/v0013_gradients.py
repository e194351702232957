"""Derivatives of a trial's errors by the factors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0010"


def upgrade() -> None:
    """Make the columns; trials that are there took no derivatives."""
    op.add_column("trials", sa.Column("gradient", sa.JSON(), nullable=True))
    op.add_column("trials", sa.Column("guardrail_gradients", sa.JSON(), nullable=True))
