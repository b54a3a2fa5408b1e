"""The revisions of the tables: where a database stands, forward and back with its rows."""

from pathlib import Path

from sqlalchemy import Engine, text

from modelyard.core.errors import SettingInvalid
from modelyard.ledger.database import POSTGRESQL, version, writing

FOLDER = Path(__file__).parent / "migrations"
LATEST = "0003"
LOCK = 0x6D6F64656C  # any number that no other program takes


def move(engine: Engine, revision: str = LATEST) -> None:
    """Bring the tables to a revision, with all rows; "base" takes them away."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    known = version(engine)
    with writing(engine) as connection:
        if engine.dialect.name == POSTGRESQL:  # others may be about to do the same
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
        config.attributes["connection"] = connection
        if revision == "base" or (known and known > revision):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def known() -> list[str]:
    """The revisions that this Modelyard knows, the first one first."""
    from alembic.script import ScriptDirectory

    return [each.revision for each in ScriptDirectory(str(FOLDER)).walk_revisions()][::-1]


def ready(engine: Engine) -> Engine:
    """A database with its tables, made where there are none; raises SettingInvalid for others."""
    found = version(engine)
    if found is None:
        move(engine)
    elif found != LATEST:
        raise SettingInvalid(
            f"The ledger's tables are of revision {found} and this Modelyard reads {LATEST}; bring "
            "them there with `modelyard ledger migrate`, after `modelyard ledger backup`."
        )
    return engine
