"""Runs revisions over the connection that `modelyard.ledger.revisions` gives."""

from alembic import context

from modelyard.ledger.schema import TABLES

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=TABLES,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
