"""Runs revisions over the connection that `modelyard.ledger.revisions` gives."""

from alembic import context
from sqlalchemy import Connection

from modelyard.ledger.schema import TABLES


def run(connection: Connection) -> None:
    """Run the revisions that alembic asks for."""
    context.configure(
        connection=connection,
        target_metadata=TABLES,
        render_as_batch=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


if config := getattr(context, "config", None):  # None where it is imported and not run
    run(config.attributes["connection"])
