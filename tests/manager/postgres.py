"""A real PostgreSQL for the suite: one server a run, on a socket in a private directory, a database for each test."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine

from manager import migrations
from tests.needs import needs

PROGRAMS = "/usr/lib/postgresql"


@dataclass
class Postgres:
    """`url(name)` of a database; `fresh()` makes one with the newest tables."""

    directory: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.directory}"

    def fresh(self) -> str:
        return self._create("template_parley")

    def empty(self) -> str:
        return self._create("template0")

    def prepare(self) -> None:
        self.statement("CREATE DATABASE template_parley TEMPLATE template0")
        migrations.upgrade(self.url("template_parley"))

    def statement(self, text: str) -> None:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as db:
            db.exec_driver_sql(text)
        engine.dispose()

    def _create(self, template: str) -> str:
        name = f"t{next(self._numbers)}"
        self.statement(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Started, and stopped at the end. As root it runs as the user `postgres`: it refuses to be root's."""
    found = sorted(Path(PROGRAMS).glob("*/bin"), key=lambda path: float(path.parent.name)) if Path(PROGRAMS).is_dir() else []
    if not found:
        needs("postgres", package="postgresql")
    programs = found[-1] if found else Path(shutil.which("postgres") or "").parent
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="parley-pg-"))
    try:
        if user:
            shutil.chown(directory, user)
        data = directory / "data"
        fast = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", f"unix_socket_directories={directory}", "listen_addresses="]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user, "cwd": directory}
        initialise = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initialise, check=True, **quiet)  # type: ignore[call-overload]  # its keywords are typed one by one
        start = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-t", "60", "-o", " ".join(f"-c {option}" for option in fast), "start"]
        subprocess.run(start, check=True, **quiet)  # type: ignore[call-overload]
        try:
            postgres = Postgres(directory)
            postgres.prepare()
            yield postgres
        finally:
            stop = [str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"]
            subprocess.run(stop, check=True, **quiet)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
