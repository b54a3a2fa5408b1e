"""Revisions of the ledger's tables, forward and back (alembic)."""
