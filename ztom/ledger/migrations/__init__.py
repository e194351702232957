"""Alembic's scripts for the ledger; run by `ztom.ledger.database` whenever a ledger is opened."""
