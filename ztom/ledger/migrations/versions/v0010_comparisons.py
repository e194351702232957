"""Trials may be comparisons: a checkpoint of the chain alone, or the average of all."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Allow the kind; SQLite makes the table anew for it."""
    name = op.f("ck_trials_known_kind")
    with op.batch_alter_table("trials") as batch:
        batch.drop_constraint(name, type_="check")
        batch.create_check_constraint(
            name, "kind IN ('baseline', 'comparison', 'startup', 'search', 'confirm')"
        )
