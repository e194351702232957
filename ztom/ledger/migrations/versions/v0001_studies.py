"""Studies, their trials and their results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first three tables."""
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_digest", sa.String(), nullable=False),
        sa.Column("chain_digest", sa.String(), nullable=False),
        sa.Column("data_digests", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("created", sa.String(), nullable=False),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'interrupted', 'failed')",
            name=op.f("ck_studies_known_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
    )
    op.create_index(op.f("ix_studies_name"), "studies", ["name"])
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("factors", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=True),
        sa.Column("error", sa.Double(), nullable=True),
        sa.Column("per_stimulus", sa.JSON(), nullable=False),
        sa.Column("guardrails", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("seconds", sa.JSON(), nullable=False),
        sa.Column("generated_tokens", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'failed')", name=op.f("ck_trials_known_status")
        ),
        sa.CheckConstraint(
            "kind IN ('baseline', 'startup', 'search', 'confirm')",
            name=op.f("ck_trials_known_kind"),
        ),
        sa.CheckConstraint(
            "(status = 'finished') = (error IS NOT NULL)",
            name=op.f("ck_trials_error_if_finished"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (told IS NULL)", name=op.f("ck_trials_told_unless_running")
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_trials_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_trials_study_id")),
    )
    op.create_table(
        "results",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_results_study_id")),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_results")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("results")
    op.drop_table("trials")
    op.drop_index(op.f("ix_studies_name"), table_name="studies")
    op.drop_table("studies")
