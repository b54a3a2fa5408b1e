"""The tables of the ledger, for SQLite and PostgreSQL alike."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
TABLES = MetaData(naming_convention=NAMES)
Big = BigInteger().with_variant(Integer, "sqlite")
Id = String(40)
Name = String(200)

organisations = Table(
    "organisations",
    TABLES,
    Column("id", Id, primary_key=True),
    Column("name", Name, nullable=False, unique=True),
    Column("created_ms", Big, nullable=False),
)
projects = Table(
    "projects",
    TABLES,
    Column("id", Id, primary_key=True),
    Column("organisation_id", Id, ForeignKey("organisations.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("created_ms", Big, nullable=False),
    UniqueConstraint("organisation_id", "name"),
)
users = Table(
    "users",
    TABLES,
    Column("id", Id, primary_key=True),
    Column("organisation_id", Id, ForeignKey("organisations.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("role", String(20), nullable=False),
    Column("created_ms", Big, nullable=False),
    UniqueConstraint("organisation_id", "name"),
)
keys = Table(
    "keys",
    TABLES,
    Column("id", Id, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("role", String(20), nullable=False),
    Column("organisation_id", Id, ForeignKey("organisations.id")),
    Column("project_id", Id, ForeignKey("projects.id")),
    Column("user_id", Id, ForeignKey("users.id")),
    Column("name", Name, nullable=False),
    Column("releases", String(2000)),
    Column("created_ms", Big, nullable=False),
    Column("expires_ms", Big),
    Column("revoked_ms", Big),
)
"""`role` is that of an admin's or a program's key; a user's key has the role of the user."""
limits = Table(
    "limits",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("subject_kind", String(20), nullable=False),
    Column("subject_id", Id, nullable=False),
    Column("measure", String(20), nullable=False),
    Column("period", String(10), nullable=False),
    Column("amount", Big, nullable=False),
    Column("is_hard", Boolean, nullable=False),
    Column("set_by", String(10), nullable=False),
    UniqueConstraint("subject_kind", "subject_id", "measure", "period", "is_hard", "set_by"),
    sqlite_autoincrement=True,
)
"""An id is never given twice, or a new limit would begin with the counter of one removed."""
counters = Table(
    "counters",
    TABLES,
    Column("limit_id", Integer, primary_key=True, autoincrement=False),
    Column("window_s", Big, primary_key=True, autoincrement=False),
    Column("used", Big, nullable=False),
)
"""What has been used of a limit since the moment `window_s` at which its period began."""
holds = Table(
    "holds",
    TABLES,
    Column("worker", Id, primary_key=True),
    Column("limit_id", Integer, primary_key=True, autoincrement=False),
    Column("window_s", Big, primary_key=True, autoincrement=False),
    Column("amount", Big, nullable=False),
    Index(None, "limit_id", "window_s"),
)
"""What requests that a worker is busy with have reserved of a limit, all together."""
workers = Table(
    "workers",
    TABLES,
    Column("id", Id, primary_key=True),
    Column("host", Name, nullable=False),
    Column("process", Big, nullable=False),
    Column("beat", Big, nullable=False),
    Column("generation", Big, nullable=False, server_default="-1"),
)
"""Processes that write into the ledger.

`beat` is the number of each one's last transaction, `generation` that of the placements and
aliases which it serves by; -1 where it serves by none yet.
"""
records = Table(
    "records",
    TABLES,
    Column("number", Big, primary_key=True, autoincrement=True),
    Column("id", Id, nullable=False),
    Column("at_ms", Big, nullable=False),
    Column("organisation_id", Id),
    Column("project_id", Id),
    Column("key_id", Id),
    Column("release", Name, nullable=False),
    Column("version", Name, nullable=False),
    Column("route", Name, nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("status", Integer, nullable=False),
    Column("requests", Big, nullable=False),
    Column("rows", Big, nullable=False),
    Column("tokens", Big, nullable=False),
    Column("images", Big, nullable=False),
    Column("compute_us", Big, nullable=False),
    Column("spend_micros", Big, nullable=False),
    Column("latency_us", Big, nullable=False),
    Column("queue_us", Big, nullable=False),
    Index(None, "at_ms"),
)
"""The journal: one for each request of a customer."""
rollups = Table(
    "rollups",
    TABLES,
    Column("organisation_id", Id, primary_key=True),
    Column("hour_s", Big, primary_key=True, autoincrement=False),
    Column("project_id", Id, primary_key=True),
    Column("key_id", Id, primary_key=True),
    Column("release", Name, primary_key=True),
    Column("version", Name, primary_key=True),
    Column("requests", Big, nullable=False),
    Column("rows", Big, nullable=False),
    Column("tokens", Big, nullable=False),
    Column("images", Big, nullable=False),
    Column("compute_us", Big, nullable=False),
    Column("spend_micros", Big, nullable=False),
)
"""What records of an hour come to; a check can add them up anew."""
answers = Table(
    "answers",
    TABLES,
    Column("scope", Id, primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("worker", Id),
    Column("at_ms", Big, nullable=False),
    Column("status", Integer),
    Column("head", String(2000)),
    Column("body", LargeBinary),
    Index(None, "at_ms"),
    Index(None, "worker"),
)
"""Answers kept for a client that asks again; without a status, a `worker` is busy with it."""
contents = Table(
    "contents",
    TABLES,
    Column("id", Id, primary_key=True),
    Column("at_ms", Big, nullable=False),
    Column("until_ms", Big, nullable=False),
    Column("release", Name, nullable=False),
    Column("version", Name, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("answers", Text),
    Column("is_cut", Boolean, nullable=False),
    Index(None, "at_ms"),
    Index(None, "until_ms"),
)
"""Rows and answers of requests, as JSON, where the project says so; deleted after `until_ms`."""
prices = Table(
    "prices",
    TABLES,
    Column("release", Name, primary_key=True),
    Column("measure", String(20), primary_key=True),
    Column("micros", Big, nullable=False),
    Column("per", Big, nullable=False),
)
"""What `per` of a measure cost, in millionths of the currency; the release "" is any."""
state = Table(
    "state",
    TABLES,
    Column("name", String(40), primary_key=True),
    Column("number", Big, nullable=False),
)
"""Numbers by name: `generation` rises whenever customers, keys, limits or prices change."""
placements = Table(
    "placements",
    TABLES,
    Column("name", Name, primary_key=True),
    Column("version", Name, primary_key=True),
    Column("folder", String(1000), nullable=False),
    Column("is_loaded", Boolean, nullable=False),
    Column("at_ms", Big, nullable=False),
)
"""Releases that services of this ledger know, and which of them are to be loaded."""
aliases = Table(
    "aliases",
    TABLES,
    Column("number", Big, primary_key=True, autoincrement=True),
    Column("name", Name, nullable=False),
    Column("alias", Name, nullable=False),
    Column("shares", String(2000), nullable=False),
    Column("shadow", Name),
    Column("at_ms", Big, nullable=False),
    Index(None, "name", "alias"),
)
"""Where aliases have led, one after the other; the last of an alias holds."""
