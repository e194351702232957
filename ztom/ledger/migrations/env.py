"""What Alembic runs; the connection and its transaction are handed in by the caller."""

from __future__ import annotations

from alembic import context

from ztom.ledger.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
