"""The store's history: Alembic revisions, run at every start.

Each step is one transaction, SQLite included, so a kill in the middle leaves the step before it. Tables are rebuilt where SQLite cannot
alter them (`render_as_batch`); foreign keys are off meanwhile and checked before the commit.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from manager.database import BUSY_SECONDS, named_failures, open_engine
from manager.errors import StoreCause, StoreUnavailable

HERE: Final = Path(__file__).parent
LOCK: Final = 0x7061726C6579
"""PostgreSQL's number of the lock that a migration holds."""


def config(db: Connection | None = None) -> Config:
    """Alembic's settings; there is no ini file. `db`: the connection that `env.py` migrates."""
    settings = Config()
    settings.set_main_option("script_location", str(HERE).replace("%", "%%"))
    settings.attributes["connection"] = db
    return settings


def upgrade(location: str, *, busy_seconds: float = BUSY_SECONDS) -> None:
    """To the newest revision. Raises `StoreUnavailable` with the cause `too-new` for a database from the future."""
    _migrate(location, _to_newest, busy_seconds)


def downgrade(location: str, revision: str) -> None:
    """Back to a revision (`base`: empty)."""
    _migrate(location, lambda settings: command.downgrade(settings, revision), BUSY_SECONDS)


def _to_newest(settings: Config) -> None:
    command.upgrade(settings, "head")


@cache
def _revisions() -> tuple[frozenset[str], str | None]:
    """All that there are, and the newest."""
    scripts = ScriptDirectory.from_config(config())
    return frozenset(script.revision for script in scripts.walk_revisions()), scripts.get_current_head()


def _migrate(location: str, step: Callable[[Config], None], busy_seconds: float) -> None:
    engine = open_engine(location, busy_seconds=busy_seconds, foreign_keys=False)
    try:
        known, newest = _revisions()
        with named_failures(), engine.execution_options(parley_write=True).begin() as db:
            if db.dialect.name == "postgresql":
                db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")  # one manager at a time, where several start together
            here = frozenset(MigrationContext.configure(db).get_current_heads())
            if here - known:
                raise StoreUnavailable(StoreCause.TOO_NEW)
            if step is not _to_newest or here != {newest}:  # as it is at every start but the first
                step(config(db))
            if db.dialect.name == "sqlite" and db.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                raise StoreUnavailable(StoreCause.DAMAGED)
    finally:
        engine.dispose()
