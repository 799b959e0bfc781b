"""Encrypted backups: all of it comes back, on either database; nothing else is taken for one."""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from manager import audit, backup, meetings
from manager.accounts import Account
from manager.errors import BackupUnreadable, SignInRefused
from manager.seal import Seal
from manager.store import Store
from tests.manager.people import village
from tests.manager.postgres import Postgres

PASSPHRASE = b"a passphrase of the tests"
SEAL = Seal()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "MEMORY", 8)
    monkeypatch.setattr(backup, "ROWS", 50)


def fill(store: Store, organizer: Account) -> None:
    def rows(db: Connection) -> None:
        for at in range(120):  # more than one chunk
            meetings.schedule(db, organizer, f"canary {at}", bytes(32), 1.0)
        for at in range(10):
            audit.record(db, audit.By(organizer.id, "192.0.2.1"), "act", f"canary {at}", 1.0)

    store.write_now(rows)


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_R25_a_backup_comes_back_on_either_database(store: Store, organizer: Account, target: str, tmp_path: Path, postgres: Postgres) -> None:
    fill(store, organizer)
    file = tmp_path / "copy.parley"
    rows = backup.backup(store, file, PASSPHRASE, SEAL)
    assert b"canary" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    other = Store(str(tmp_path / "restored.db") if target == "sqlite" else postgres.fresh())
    assert backup.restore(other, file, PASSPHRASE, SEAL) == rows
    ours, theirs = (s.read_now(meetings.list_meetings, organizer) for s in (store, other))
    assert ours == theirs
    assert other.read_now(audit.verify, [store.read_now(audit.head)]) == 10
    other.write_now(meetings.schedule, organizer, "after", bytes(32), 2.0)  # the numbers of rows go on
    with pytest.raises(BackupUnreadable, match="empty"):
        backup.restore(other, file, PASSPHRASE, SEAL)
    other.close()


def test_what_is_no_backup_is_named_and_changes_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "copy.parley"
    sqlite_store.write_now(audit.record, audit.By(None, ""), "act", "canary", 1.0)
    backup.backup(sqlite_store, file, PASSPHRASE, SEAL)
    whole = file.read_bytes()
    with pytest.raises(BackupUnreadable, match="exists"):
        backup.backup(sqlite_store, file, PASSPHRASE, SEAL)
    other = Store(str(tmp_path / "other.db"))
    broken = [b"", whole[:20], whole[:-1], whole + b"x", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], b"x" + whole[1:], whole[:32]]
    size = int.from_bytes(whole[32:36], "big")
    broken += [whole[:32] + whole[36 + size :], whole[: 36 + size], whole[:32] + b"\xff\xff\xff\xff" + whole[36:]]
    for content in broken:
        file.write_bytes(content)
        with pytest.raises(BackupUnreadable):
            backup.restore(other, file, PASSPHRASE, SEAL)
    file.write_bytes(whole)
    with pytest.raises(BackupUnreadable):
        backup.restore(other, file, PASSPHRASE + b"!", SEAL)
    with pytest.raises(BackupUnreadable):
        backup.restore(other, tmp_path / "absent", PASSPHRASE, SEAL)
    assert backup.restore(other, file, PASSPHRASE, SEAL) == 1
    other.close()
    assert list(tmp_path.glob(".*.part")) == []


async def test_R5_authenticators_open_a_restored_store_under_another_key(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "copy.parley"
    async with village(store) as v:
        caller = await v.join("ann@example.org")
        app = await v.totp(caller)
        with pytest.raises(BackupUnreadable, match="identity"):
            backup.backup(store, file, PASSPHRASE, None)
        backup.backup(store, file, PASSPHRASE, v.seal)
    other = Store(str(tmp_path / "restored.db"))
    with pytest.raises(BackupUnreadable, match="identity"):
        backup.restore(other, file, PASSPHRASE, None)
    backup.restore(other, file, PASSPHRASE, SEAL)
    async with village(other, seal=SEAL) as w:
        w.now = v.now + 60
        half = await w.sign_in("ann@example.org")
        assert (await w.house.entrance.use_code(half.caller, app.at(w.now))).caller.login is not None
    async with village(other, seal=Seal()) as x:  # as it was with a database alone
        x.now = w.now + 60
        half = await x.sign_in("ann@example.org")
        with pytest.raises(SignInRefused):
            await x.house.entrance.use_code(half.caller, app.at(x.now))
    other.close()
