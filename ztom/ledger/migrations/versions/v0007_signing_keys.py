"""Keys whose signatures count, and which key signed a verdict or a variant that is served."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table and the columns; what is there was signed by nobody."""
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("revoked", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
        sa.UniqueConstraint("public_key", name=op.f("uq_signing_keys_public_key")),
    )
    op.add_column("gate_verdicts", sa.Column("public_key", sa.String(), nullable=True))
    op.add_column("deployments", sa.Column("signed_by", sa.String(), nullable=True))
