"""Verdicts of the gate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "gate_verdicts",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column("champion", sa.String(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('pass', 'fail', 'inconclusive')",
            name=op.f("ck_gate_verdicts_known_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_gate_verdicts_project_id")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_gate_verdicts")),
        sa.UniqueConstraint("sha256", "project_id", name=op.f("uq_gate_verdicts_sha256")),
    )
    op.create_index(op.f("ix_gate_verdicts_candidate"), "gate_verdicts", ["candidate"])
