"""Accounts by invitation, and a role that deploying takes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table and the column; who has deployed before may go on."""
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("may_deploy", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("email", name=op.f("uq_invitations_email")),
    )
    op.add_column(
        "users",
        sa.Column("may_deploy", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    users = sa.table("users", sa.column("id"), sa.column("may_deploy"))
    deployments = sa.table("deployments", sa.column("actor"))
    theirs = deployments.c.actor.like(sa.literal("user:") + users.c.id + sa.literal("%"))
    op.execute(
        users.update()
        .where(sa.exists().where(theirs).select_from(deployments).correlate(users))
        .values(may_deploy=sa.true())
    )
