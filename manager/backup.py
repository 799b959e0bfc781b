"""An encrypted copy of the store, and the way back, for either database: a backup of one can be restored into the other.

    file   = "parley backup 1\\n" ‖ salt (16 bytes) ‖ chunk…            AAD of every chunk: those first 32 bytes
    chunk  = length u32 ‖ ChaCha20-Poly1305(key, nonce = number u64 ‖ last u32, zstd(msgpack))
    key    = Argon2id(passphrase, salt), 256 MiB and four passes: a stolen backup can be guessed at without limit
    chunks = [revision, time, key of TOTP keys] first, then [table, columns, rows] of at most 1,000 rows, `last` = 1 in the last one

A chunk that is changed, moved or missing is noticed, the last one too. Everything is read in one transaction, so the copy is of one moment
while the manager goes on, and restored in one, into an empty store alone. Sign-ins, lock-outs and idempotency keys are left out. The key that
TOTP keys are sealed with (`manager.seal`) goes along, and they are sealed anew on the way back, so that authenticators go on to open accounts
on a machine that has never seen the old one.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import zstandard
from alembic.runtime.migration import MigrationContext
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sqlalchemy import Connection, Integer, func, select, text

from manager.errors import BackupUnreadable
from manager.hidden import Hidden
from manager.seal import Seal
from manager.store import HiddenBytes, Store, accounts, metadata

MAGIC: Final = b"parley backup 1\n"
SALT: Final = 16
MEMORY: Final = 256 * 1024
"""KiB, for the key."""
ROWS: Final = 1000
MAX_CHUNK: Final = 256 * 1024 * 1024
"""Bytes."""
NO_SEAL: Final = (
    "accounts in it use authenticator apps; name the manager's identity directory (--identity, or in the settings), where totp.key is"
)
LEFT_OUT: Final = frozenset({"logins", "lockouts", "idempotency"})


def backup(store: Store, path: Path, passphrase: bytes, seal: Seal | None) -> int:
    """Write a new file, mode 0600, whole or not at all; how many rows. `seal`: the manager's; None will do while
    nobody uses an authenticator app. Raises `BackupUnreadable`, also if the file exists, and `StoreUnavailable`."""
    part = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        if path.exists():
            os.close(descriptor)
            raise BackupUnreadable(f"{path} exists already; choose another name")
        with open(descriptor, "wb") as file:
            header = MAGIC + os.urandom(SALT)
            file.write(header)
            rows = store.read_now(_write, file, header, _key(passphrase, header), seal)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        raise BackupUnreadable(f"{path} cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return rows


def restore(store: Store, path: Path, passphrase: bytes, seal: Seal | None) -> int:
    """Fill an empty store, its TOTP keys under this seal; how many rows. Raises `BackupUnreadable`, which leaves the store
    as it was, and `StoreUnavailable`."""
    try:
        with path.open("rb") as file:
            header = file.read(len(MAGIC) + SALT)
            if len(header) != len(MAGIC) + SALT or not header.startswith(MAGIC):
                raise BackupUnreadable(f"{path} is no backup of Parley")
            return store.write_now(_read, file, header, _key(passphrase, header), seal)
    except OSError as error:
        raise BackupUnreadable(f"{path} cannot be read ({error.strerror})") from None


def _key(passphrase: bytes, header: bytes) -> ChaCha20Poly1305:
    salt = header[len(MAGIC) :]
    return ChaCha20Poly1305(hash_secret_raw(passphrase, salt, time_cost=4, memory_cost=MEMORY, parallelism=1, hash_len=32, type=Type.ID))


def _write(db: Connection, file: BinaryIO, header: bytes, key: ChaCha20Poly1305, seal: Seal | None) -> int:
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    rows = 0
    waiting: Any = [list(MigrationContext.configure(db).get_current_heads()), time.time(), None if seal is None else seal.key.reveal()]
    if seal is None and db.execute(select(accounts.c.id).where(accounts.c.totp.is_not(None)).limit(1)).first() is not None:
        raise BackupUnreadable(NO_SEAL)
    number = 0
    for table in metadata.sorted_tables:
        if table.name in LEFT_OUT:
            continue
        columns = [str(column.name) for column in table.columns]
        for some in db.execution_options(yield_per=ROWS).execute(select(table)).partitions(ROWS):
            _seal(file, header, key, number, False, waiting)
            number += 1
            waiting = [str(table.name), columns, [[v.reveal() if isinstance(v, Hidden) else v for v in row] for row in some]]
            rows += len(some)
    _seal(file, header, key, number, True, waiting)
    return rows


def _seal(file: BinaryIO, header: bytes, key: ChaCha20Poly1305, number: int, last: bool, content: Any) -> None:
    sealed = key.encrypt(_nonce(number, last), zstandard.compress(msgspec.msgpack.encode(content)), header)
    file.write(len(sealed).to_bytes(4, "big") + sealed)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(8, "big") + int(last).to_bytes(4, "big")


def _read(db: Connection, file: BinaryIO, header: bytes, key: ChaCha20Poly1305, seal: Seal | None) -> int:
    chunks = _open_untrusted(file, header, key)
    heads = list(MigrationContext.configure(db).get_current_heads())
    revision, _, *sealed_with = next(chunks)
    if revision != heads or len(sealed_with) != 1:
        raise BackupUnreadable("it was made by another version of Parley; restore it with that one, then update")
    for table in metadata.sorted_tables:
        if db.execute(select(text("1")).select_from(table).limit(1)).first() is not None:
            raise BackupUnreadable("a backup is restored into an empty store; name another one with --store")
    rows = 0
    for name, columns, some in chunks:
        table = metadata.tables[name]
        hidden = {column for column in columns if isinstance(table.c[column].type, HiddenBytes)}
        values = [
            {column: Hidden(value) if column in hidden and value is not None else value for column, value in zip(columns, row, strict=True)}
            for row in some
        ]
        if name == "accounts":
            _seal_anew(values, sealed_with[0], seal)
        db.execute(table.insert(), values)
        rows += len(values)
    if db.dialect.name == "postgresql":
        _set_sequences(db)
    return rows


def _seal_anew(values: list[dict[str, Any]], sealed_with: bytes | None, seal: Seal | None) -> None:
    """What the backup's own key does not open stays as it is: it opened nothing before, either. Raises `BackupUnreadable`."""
    for account in values:
        if account["totp"] is not None and sealed_with is not None:
            if seal is None:
                raise BackupUnreadable(NO_SEAL)
            key = Seal(Hidden(sealed_with)).open(account["totp"], account["id"])
            if key is not None:
                account["totp"] = seal.seal(key, account["id"])


def _open_untrusted(file: BinaryIO, header: bytes, key: ChaCha20Poly1305) -> Iterator[Any]:
    """What the chunks hold. Raises `BackupUnreadable`; only what was sealed with this passphrase is decoded."""
    number, last = 0, False
    while not last:
        size = int.from_bytes(file.read(4), "big")
        sealed = file.read(size) if 0 < size <= MAX_CHUNK else b""
        opened = None
        for last in (False, True):
            try:
                opened = key.decrypt(_nonce(number, last), sealed, header)
                break
            except (InvalidTag, ValueError):
                continue
        if opened is None:
            raise BackupUnreadable("the passphrase is another one, or the file is damaged")
        yield msgspec.msgpack.decode(zstandard.decompress(opened, max_output_size=MAX_CHUNK))
        number += 1
    if file.read(1):
        raise BackupUnreadable("there is something behind its end")


def _set_sequences(db: Connection) -> None:
    for table in metadata.sorted_tables:
        for column in table.primary_key.columns:
            if isinstance(column.type, Integer) and column.name == "id" and table.name not in LEFT_OUT:
                top = db.execute(select(func.coalesce(func.max(column), 0))).scalar_one()
                db.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), top + 1, False)))
