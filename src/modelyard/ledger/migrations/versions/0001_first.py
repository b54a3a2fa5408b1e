"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "answers",
        sa.Column("scope", sa.String(40), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("worker", sa.String(40)),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("head", sa.String(length=2000)),
        sa.Column("body", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("scope", "idempotency_key", name="pk_answers"),
    )
    op.create_index("ix_answers_at_ms", "answers", ["at_ms"])
    op.create_index("ix_answers_worker", "answers", ["worker"])
    op.create_table(
        "counters",
        sa.Column("limit_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("window_s", Big, autoincrement=False, nullable=False),
        sa.Column("used", Big, nullable=False),
        sa.PrimaryKeyConstraint("limit_id", "window_s", name="pk_counters"),
    )
    op.create_table(
        "holds",
        sa.Column("worker", sa.String(40), nullable=False),
        sa.Column("limit_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("window_s", Big, autoincrement=False, nullable=False),
        sa.Column("amount", Big, nullable=False),
        sa.PrimaryKeyConstraint("worker", "limit_id", "window_s", name="pk_holds"),
    )
    op.create_index("ix_holds_limit_id_window_s", "holds", ["limit_id", "window_s"])
    op.create_table(
        "limits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject_kind", sa.String(length=20), nullable=False),
        sa.Column("subject_id", sa.String(40), nullable=False),
        sa.Column("measure", sa.String(length=20), nullable=False),
        sa.Column("period", sa.String(length=10), nullable=False),
        sa.Column("amount", Big, nullable=False),
        sa.Column("is_hard", sa.Boolean(), nullable=False),
        sa.Column("set_by", sa.String(length=10), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_limits"),
        sa.UniqueConstraint(
            "subject_kind",
            "subject_id",
            "measure",
            "period",
            "is_hard",
            "set_by",
            name="uq_limits_subject_kind_subject_id_measure_period_is_hard_set_by",
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "organisations",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organisations"),
        sa.UniqueConstraint("name", name="uq_organisations_name"),
    )
    op.create_table(
        "prices",
        sa.Column("release", sa.String(length=200), nullable=False),
        sa.Column("measure", sa.String(length=20), nullable=False),
        sa.Column("micros", Big, nullable=False),
        sa.Column("per", Big, nullable=False),
        sa.PrimaryKeyConstraint("release", "measure", name="pk_prices"),
    )
    op.create_table(
        "records",
        sa.Column("number", Big, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("organisation_id", sa.String(40)),
        sa.Column("project_id", sa.String(40)),
        sa.Column("key_id", sa.String(40)),
        sa.Column("release", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("route", sa.String(length=200), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("requests", Big, nullable=False),
        sa.Column("rows", Big, nullable=False),
        sa.Column("tokens", Big, nullable=False),
        sa.Column("images", Big, nullable=False),
        sa.Column("compute_us", Big, nullable=False),
        sa.Column("spend_micros", Big, nullable=False),
        sa.Column("latency_us", Big, nullable=False),
        sa.Column("queue_us", Big, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_records"),
    )
    op.create_index("ix_records_at_ms", "records", ["at_ms"])
    op.create_table(
        "rollups",
        sa.Column("organisation_id", sa.String(40), nullable=False),
        sa.Column("hour_s", Big, autoincrement=False, nullable=False),
        sa.Column("project_id", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("release", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("requests", Big, nullable=False),
        sa.Column("rows", Big, nullable=False),
        sa.Column("tokens", Big, nullable=False),
        sa.Column("images", Big, nullable=False),
        sa.Column("compute_us", Big, nullable=False),
        sa.Column("spend_micros", Big, nullable=False),
        sa.PrimaryKeyConstraint(
            "organisation_id",
            "hour_s",
            "project_id",
            "key_id",
            "release",
            "version",
            name="pk_rollups",
        ),
    )
    op.create_table(
        "state",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("number", Big, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_state"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("process", Big, nullable=False),
        sa.Column("beat", Big, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("organisation_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_projects_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("organisation_id", "name", name="uq_projects_organisation_id_name"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("organisation_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_users_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("organisation_id", "name", name="uq_users_organisation_id_name"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("organisation_id", sa.String(40)),
        sa.Column("project_id", sa.String(40)),
        sa.Column("user_id", sa.String(40)),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("releases", sa.String(length=2000)),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("expires_ms", Big),
        sa.Column("revoked_ms", Big),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_keys_organisation_id"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_keys_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_keys_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
    )


def downgrade() -> None:
    """Back."""
    op.drop_table("keys")
    op.drop_table("users")
    op.drop_table("projects")
    op.drop_table("workers")
    op.drop_table("state")
    op.drop_table("rollups")
    op.drop_index("ix_records_at_ms", table_name="records")
    op.drop_table("records")
    op.drop_table("prices")
    op.drop_table("organisations")
    op.drop_table("limits")
    op.drop_index("ix_holds_limit_id_window_s", table_name="holds")
    op.drop_table("holds")
    op.drop_table("counters")
    op.drop_index("ix_answers_worker", table_name="answers")
    op.drop_index("ix_answers_at_ms", table_name="answers")
    op.drop_table("answers")
