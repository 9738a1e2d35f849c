"""Migrations, run in the process: the Alembic scripts of the package `migrations` on a connection that is given."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import migrations
from app.storage.tables import metadata


def configuration() -> Config:
    """Alembic's configuration; there is no file to be found or lost."""
    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config


def upgrade(connection: Connection) -> None:
    """Run what migrations are missing, in the connection's transaction."""
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def differences(connection: Connection) -> list[str]:
    """What sets the database apart from the scripts' newest revision and from the tables; empty when nothing does."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    wanted = set(ScriptDirectory.from_config(configuration()).get_heads())
    found = set(context.get_current_heads())
    if wanted != found:
        return [f"at revision {', '.join(sorted(found)) or 'none'}, should be at {', '.join(sorted(wanted))}"]
    return [_sentence(difference) for difference in compare_metadata(context, metadata)]


def _sentence(difference: object) -> str:
    """`('add_index', Index(…))` and the like; changes of one column come as lists of such."""
    if isinstance(difference, list):
        return "; ".join(_sentence(part) for part in difference)
    assert isinstance(difference, tuple)
    return " ".join(str(part) for part in difference if part is not None)
