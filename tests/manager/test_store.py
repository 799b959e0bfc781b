"""The store: what is acknowledged stays, what fails has a name, and no value leaves in an error."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import trio
import trio.testing
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event, text

from manager import keys, meetings, migrations
from manager.database import open_engine
from manager.errors import OrganizerExists, SettingsMalformed, StoreCause, StoreInUse, StoreUnavailable
from manager.hidden import Hidden
from manager.store import Store, metadata, next_value, nodes
from tests.manager.postgres import Postgres
from tests.manager.support import account_of_key

CANARY = "canary-of-the-store"


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as db:
        found = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.close()
    return found


def refused(path: Path | str) -> StoreCause:
    with pytest.raises(StoreUnavailable) as caught:
        Store(str(path), busy_seconds=0.01)
    return caught.value.cause


def test_migrations_make_exactly_the_tables_and_take_them_back(sqlite_store: Store, tmp_path: Path) -> None:
    with sqlite_store.engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    sqlite_store.close()
    path = tmp_path / "manager.db"
    assert tables(path) == {*metadata.tables, "alembic_version"}
    migrations.downgrade(str(path), "base")
    assert tables(path) == {"alembic_version"}
    migrations.upgrade(str(path))
    assert tables(path) == {*metadata.tables, "alembic_version"}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_older_store_moves_along_and_back(kind: str, tmp_path: Path, postgres: Postgres) -> None:
    """The store of the first meeting: its organizers keep their keys and meetings, forth, back and forth again."""
    location = str(tmp_path / "old.db") if kind == "sqlite" else postgres.empty()
    migrations.upgrade(location)
    migrations.downgrade(location, "0001")
    key = Hidden(bytes(range(32)))
    engine = open_engine(location)
    with engine.begin() as db:
        add = text("INSERT INTO organizers (id, name, key_digest, created_at) VALUES (:id, :name, :digest, 1)")
        db.execute(add, {"id": 7, "name": "ann", "digest": sha256(key.reveal()).digest()})
        db.execute(add, {"id": 8, "name": "gone", "digest": None})
        keep = "INSERT INTO meetings (number, held, organizer_id, title, meeting_key, invite, state, created_at) "
        db.execute(
            text(keep + "VALUES (123456789, 123456789, 7, 'old', :key, :invite, 'scheduled', 1)"), {"key": bytes(32), "invite": b"i" * 8}
        )
    engine.dispose()
    for turn in range(2):
        store = Store(location)
        ann = store.read_now(account_of_key, key)
        assert (ann.id, ann.name) == (7, "ann")
        assert [(m.number, m.title) for m in store.read_now(meetings.list_meetings, ann)] == [(123456789, "old")]
        assert [(o.name, o.active) for o in store.read_now(keys.list_organizers)][:2] == [("ann", True), ("gone", False)]
        store.write_now(keys.add_organizer, f"new {turn}", 1.0)
        with store.engine.connect() as db:
            assert compare_metadata(MigrationContext.configure(db), metadata) == []
        store.close()
        migrations.downgrade(location, "0001")
    migrations.downgrade(location, "base")


def test_sqlite_is_set_up_for_durability(sqlite_store: Store, tmp_path: Path) -> None:
    with sqlite_store.engine.connect() as db:
        settings = {
            name: db.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_readable_file_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "manager.db"
    path.touch(mode=0o644)
    Store(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_refused_rule_leaves_nothing_behind(store: Store) -> None:
    def rule(db: Connection) -> None:
        keys.add_organizer(db, "ann", 1.0)
        keys.add_organizer(db, "ann", 1.0)

    with pytest.raises(OrganizerExists):
        store.write_now(rule)
    assert store.read_now(keys.list_organizers) == []


def test_counters_rise_across_restarts(tmp_path: Path) -> None:
    values = []
    for _ in range(3):
        store = Store(str(tmp_path / "manager.db"))
        values.append(store.write_now(next_value, "starts"))
        store.close()
    assert values == [1, 2, 3]


def test_only_one_manager_serves_a_file(tmp_path: Path) -> None:
    first = Store(str(tmp_path / "manager.db"), claim=True)
    with pytest.raises(StoreInUse):
        Store(str(tmp_path / "manager.db"), claim=True)
    Store(str(tmp_path / "manager.db")).close()  # a visit is welcome
    first.close()
    Store(str(tmp_path / "manager.db"), claim=True).close()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere" / "manager.db") is StoreCause.UNREACHABLE


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path) is StoreCause.UNREACHABLE


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manager.db"
    path.write_bytes(b"no database " * 1000)
    assert refused(path) is StoreCause.DAMAGED
    assert path.read_bytes() == b"no database " * 1000


def test_a_database_of_a_newer_version_is_named_and_left_alone(sqlite_store: Store, tmp_path: Path) -> None:
    sqlite_store.close()
    path = tmp_path / "manager.db"
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    assert refused(path) is StoreCause.TOO_NEW
    assert tables(path) == {*metadata.tables, "alembic_version"}


def test_a_locked_database_is_named(sqlite_store: Store, tmp_path: Path) -> None:
    sqlite_store.close()
    other = sqlite3.connect(tmp_path / "manager.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert refused(tmp_path / "manager.db") is StoreCause.LOCKED
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("location", ["mysql://", "nonsense://x/y", "://"])
def test_a_location_that_names_no_store_is_named(location: str) -> None:
    with pytest.raises((SettingsMalformed, StoreUnavailable)):
        Store(location)


def test_a_full_disk_is_named_and_loses_nothing(sqlite_store: Store) -> None:
    organizer = sqlite_store.read_now(account_of_key, sqlite_store.write_now(keys.add_organizer, "ann", 1.0))
    kept = [sqlite_store.write_now(meetings.schedule, organizer, "kept", bytes(32), 1.0).number for _ in range(20)]

    def fill(db: Connection) -> None:
        db.exec_driver_sql(f"PRAGMA max_page_count = {db.exec_driver_sql('PRAGMA page_count').scalar_one()}")
        for at in range(10_000):
            meetings.schedule(db, organizer, f"{at} {CANARY}", bytes(32), 2.0)

    with pytest.raises(StoreUnavailable) as caught:
        sqlite_store.write_now(fill)
    assert caught.value.cause is StoreCause.FULL
    assert CANARY not in repr(caught.value) + str(caught.value)
    assert {m.number for m in sqlite_store.read_now(meetings.list_meetings, organizer)} == set(kept)


def test_G21_errors_and_reprs_hold_no_values(store: Store) -> None:
    def rule(db: Connection) -> None:
        for _ in range(2):
            db.execute(nodes.insert().values(name=CANARY, info=b""))

    with pytest.raises(StoreUnavailable) as caught:
        store.write_now(rule)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert CANARY not in str(caught.value)
    with store.engine.connect() as db, pytest.raises(Exception, match="hidden") as raw:
        db.execute(text("INSERT INTO nodes (name, nothing) VALUES ('n', :canary)"), {"canary": CANARY})
    assert CANARY not in str(raw.value)
    assert repr(Hidden(CANARY.encode())) == "Hidden(…)"


async def test_readers_go_on_while_a_writer_works(store: Store) -> None:
    started, release = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def slow(db: Connection) -> None:
        keys.add_organizer(db, "ann", 1.0)
        trio.from_thread.run_sync(started.set, trio_token=token)
        trio.from_thread.run(release.wait, trio_token=token)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, slow)
            await started.wait()
            assert await store.read(keys.list_organizers) == []
            release.set()
    assert [o.name for o in await store.read(keys.list_organizers)] == ["ann"]


async def test_a_look_sees_what_is_written_and_holds_up_no_writer(store: Store) -> None:
    await store.write(keys.add_organizer, "ann", 1.0)
    assert [o.name for o in await store.look(keys.list_organizers)] == ["ann"]
    with pytest.raises(OrganizerExists):
        await store.look(keys.add_organizer, "ann", 1.0)  # a rule's refusal is its own, and leaves no transaction open
    await store.write(keys.add_organizer, "ben", 1.0)
    assert [o.name for o in await store.look(keys.list_organizers)] == ["ann", "ben"]


async def test_a_look_that_fails_is_named_and_the_next_one_works(store: Store, logged: list[dict[str, object]]) -> None:
    with pytest.raises(StoreUnavailable):
        await store.look(lambda db: db.exec_driver_sql("SELECT nothing FROM nowhere"))
    assert [event["event"] for event in logged] == ["store-unavailable"]
    assert await store.look(keys.list_organizers) == []


WRITER = """
import sys
from manager import keys, meetings
from manager.store import Store
store = Store(sys.argv[1])
key = store.write_now(keys.add_organizer, sys.argv[2], 1.0)
organizer = store.read_now(keys.caller_of_key, key, '', 1.0)[0].account
while True:
    print(store.write_now(meetings.schedule, organizer, "kept", bytes(32), 1.0).number, flush=True)
"""


def test_G01_kill_under_load_loses_no_acknowledged_meeting(tmp_path: Path) -> None:
    path = tmp_path / "manager.db"
    for turn in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"o{turn}"], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(60)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().splitlines() if len(line) == 9]
        writer.stdout.close()
        writer.wait()
        store = Store(str(path))
        with store.engine.connect() as db:
            kept = {int(number) for number in db.execute(text("SELECT number FROM meetings")).scalars()}
            assert db.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        store.close()
        assert set(acknowledged) <= kept


async def test_writes_that_wait_go_together_and_refusals_stay_their_own(store: Store) -> None:
    """One transaction for all that wait; what is refused, or cancelled in the queue, takes nothing of the others with it."""
    commits: list[None] = []
    event.listen(store.engine, "commit", lambda _: commits.append(None))
    started, release = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    refused: list[str] = []

    def slow(db: Connection) -> None:
        trio.from_thread.run_sync(started.set, trio_token=token)
        trio.from_thread.run(release.wait, trio_token=token)

    async def add(name: str) -> None:
        try:
            await store.write(keys.add_organizer, name, 1.0)
        except OrganizerExists:
            refused.append(name)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, slow)
            await started.wait()
            for name in ("ann", "bob", "ann", "cleo"):
                nursery.start_soon(add, name)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as cancelled:
                    cancelled.start_soon(add, "nobody")
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            commits.clear()
            release.set()
    assert sorted(o.name for o in store.read_now(keys.list_organizers)) == ["ann", "bob", "cleo"]
    assert refused == ["ann"]
    assert len(commits) == 2  # the slow one, and all the others
