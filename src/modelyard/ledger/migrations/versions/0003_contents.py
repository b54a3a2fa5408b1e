"""Rows and answers of some requests."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "contents",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("until_ms", Big, nullable=False),
        sa.Column("release", sa.String(200), nullable=False),
        sa.Column("version", sa.String(200), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("answers", sa.Text()),
        sa.Column("is_cut", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contents"),
    )
    op.create_index("ix_contents_at_ms", "contents", ["at_ms"])
    op.create_index("ix_contents_until_ms", "contents", ["until_ms"])


def downgrade() -> None:
    """Back."""
    op.drop_index("ix_contents_until_ms", table_name="contents")
    op.drop_index("ix_contents_at_ms", table_name="contents")
    op.drop_table("contents")
