"""Releases that are placed, and aliases that lead to them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "placements",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.String(200), nullable=False),
        sa.Column("folder", sa.String(1000), nullable=False),
        sa.Column("is_loaded", sa.Boolean(), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_placements"),
    )
    op.create_table(
        "aliases",
        sa.Column("number", Big, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("alias", sa.String(200), nullable=False),
        sa.Column("shares", sa.String(2000), nullable=False),
        sa.Column("shadow", sa.String(200)),
        sa.Column("at_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_aliases"),
    )
    op.create_index("ix_aliases_name_alias", "aliases", ["name", "alias"])
    with op.batch_alter_table("workers") as workers:
        workers.add_column(sa.Column("generation", Big, server_default="-1", nullable=False))


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("workers") as workers:
        workers.drop_column("generation")
    op.drop_index("ix_aliases_name_alias", table_name="aliases")
    op.drop_table("aliases")
    op.drop_table("placements")
