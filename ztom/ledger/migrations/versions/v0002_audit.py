"""Variants, and the audit chain, which the database itself keeps from being changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Each statement runs by itself. A row may only be added at the end: that also stops SQLite's
# INSERT OR REPLACE, whose implicit deletion fires no trigger.
_SQLITE = (
    """CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit chain is append-only'); END""",
    """CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit chain is append-only'); END""",
    """CREATE TRIGGER audit_at_the_end BEFORE INSERT ON audit
       WHEN NEW.sequence IS NOT (SELECT COALESCE(MAX(sequence), 0) + 1 FROM audit)
         OR NEW.previous IS NOT COALESCE(
           (SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1), printf('%064d', 0))
       BEGIN SELECT RAISE(ABORT, 'an audit row has to follow the last one'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'the audit chain is append-only'; END $$""",
    """CREATE FUNCTION audit_follow() RETURNS trigger LANGUAGE plpgsql AS $$
       DECLARE last audit%ROWTYPE;
       BEGIN
         SELECT * INTO last FROM audit ORDER BY sequence DESC LIMIT 1;
         IF NEW.sequence IS DISTINCT FROM COALESCE(last.sequence, 0) + 1
            OR NEW.previous IS DISTINCT FROM COALESCE(last.hash, repeat('0', 64)) THEN
           RAISE EXCEPTION 'an audit row has to follow the last one';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
       FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()""",
    """CREATE TRIGGER audit_at_the_end BEFORE INSERT ON audit
       FOR EACH ROW EXECUTE FUNCTION audit_follow()""",
)


def upgrade() -> None:
    """Make two tables and the triggers."""
    op.create_table(
        "variants",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_variants_study_id_studies")
        ),
        sa.PrimaryKeyConstraint("digest", "address", name=op.f("pk_variants")),
    )
    op.create_table(
        "audit",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", sa.String(), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit")),
    )
    dialect = op.get_bind().dialect.name
    for statement in {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}.get(dialect, ()):
        op.execute(sa.text(statement))
