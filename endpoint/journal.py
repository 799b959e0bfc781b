"""What an organizer keeps on disk while its session runs, so that it can come back after its program has died: sealed, append-only.

    file     "parley j" ‖ salt 16 ‖ record …
    record   length u32 ‖ packet, as on the wire: header 32 (label, counter 8), AES-CTR, HMAC-SHA1     key: HKDF from the meeting key's seed
    content  entry of the log with the group key that holds after it · counters of members' streams · the chain, first of all

An entry is on disk before it is sent, so no two entries of ours ever stand at one place of the log. A record that was cut off by the
crash is no record; any other damage means that there is nothing to come back to. The next process writes a fresh file under a fresh salt,
so that no counter is used twice. The file is locked while its organizer lives, and goes when the session ends.
"""

import fcntl
import os
import secrets
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import msgspec
from msgspec import Struct

from crypto.errors import CryptoError
from crypto.schedule import StreamKeys, expand, extract
from crypto.seal import Opener, Sealer
from crypto.suite import HEADER_SIZE, STREAM_KEYS_SIZE, framed
from endpoint import log
from endpoint.errors import EndpointError
from endpoint.log import Cuts
from wire.ids import SessionId

_MAGIC: Final = b"parley j"
_LABEL: Final = b"parley disk 1"
_HEADER: Final = b"parley journal 1".ljust(HEADER_SIZE - 8, b"\0")
_LENGTH: Final = struct.Struct("!I")
_SALT_SIZE: Final = 16
_MAX_RECORD: Final = log.MAX_ENTRY + 4096


class JournalError(EndpointError):
    name: ClassVar[str] = "journal-unusable"
    sentence: ClassVar[str] = "The session cannot be written down on this machine, so it could not be taken up again after a crash."


class _Chain(Struct, frozen=True, array_like=True, tag=1):
    session: bytes
    chain: list[bytes]


class _Entry(Struct, frozen=True, array_like=True, tag=2):
    wire: bytes
    epoch: int
    key: bytes


class _Counters(Struct, frozen=True, array_like=True, tag=3):
    counters: Cuts


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Chain | _Entry | _Counters).decode


@dataclass(slots=True)
class Saved:
    """What an earlier process left behind."""

    session: SessionId
    chain: list[bytes]
    entries: list[bytes] = field(default_factory=list)
    epoch: int = 0
    group_key: bytes = field(default=b"", repr=False)
    counters: dict[tuple[int, int], int] = field(default_factory=dict)  # by participant, channel: the last one applied


class Journal:
    """Owned by a chair. Made by `begin`."""

    def __init__(self, path: Path, descriptor: int, sealer: Sealer) -> None:
        self._path = path
        self._descriptor = descriptor
        self._sealer = sealer

    @classmethod
    def begin(cls, path: Path, seed: bytes, session: SessionId) -> tuple[Self, Saved | None]:
        """A journal for this session, and what an earlier process left of it. Raises JournalError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            saved = _read(path, seed, session)
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                salt = secrets.token_bytes(_SALT_SIZE)
                os.write(descriptor, _MAGIC + salt)
                journal = cls(path, descriptor, Sealer(_keys(seed, salt)))
                journal._write(_Chain(session.to_bytes(8, "big"), saved.chain if saved else []))
                if saved is not None:
                    for at, wire in enumerate(saved.entries):
                        last = at == len(saved.entries) - 1
                        journal._write(_Entry(wire, saved.epoch if last else 0, saved.group_key if last else b""))
                    journal._write(_Counters([(p, c, counter) for (p, c), counter in saved.counters.items()]))
                part.replace(path)
            except BaseException:
                os.close(descriptor)
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}. {JournalError.sentence}") from None
        return journal, saved

    @staticmethod
    def check_free(path: Path) -> None:
        """Raises JournalError if a program on this machine organizes this session."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return
        try:
            _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def entry(self, wire: bytes, epoch: int, key: bytes) -> None:
        """An entry that is about to be sent, and the epoch and key that hold after it. Raises JournalError."""
        self._write(_Entry(wire, epoch, key))

    def counters(self, counters: Cuts) -> None:
        """How far members' streams are applied. Raises JournalError."""
        self._write(_Counters(counters))

    def forget(self) -> None:
        """The session is over, or somebody else's."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)  # nothing of it may be taken up again, whatever becomes of its name
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Leave it for a process to come."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, record: _Chain | _Entry | _Counters) -> None:
        if self._descriptor < 0:
            return
        counter = self._sealer.last + 1
        packet = self._sealer.seal(_HEADER + counter.to_bytes(8, "big"), counter, _encode(record))
        whole = memoryview(_LENGTH.pack(len(packet)) + packet)
        try:
            while whole:
                whole = whole[os.write(self._descriptor, whole) :]
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}. {JournalError.sentence}") from None


def _keys(seed: bytes, salt: bytes) -> StreamKeys:
    return StreamKeys.split(expand(extract(framed(_LABEL, salt), seed), b"journal", size=STREAM_KEYS_SIZE))


def _read(path: Path, seed: bytes, session: SessionId) -> Saved | None:
    """None if there is nothing of this session, or it is damaged. Raises OSError; JournalError if its organizer lives."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        _try_lock(descriptor)
        content = file.read()
    return _parse(content, seed, session)


def _try_lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError("Another program on this machine organizes this session already.") from None


def _parse(content: bytes, seed: bytes, session: SessionId) -> Saved | None:
    begin = len(_MAGIC) + _SALT_SIZE
    if content[: len(_MAGIC)] != _MAGIC or len(content) < begin:
        return None
    opener = Opener(_keys(seed, content[len(_MAGIC) : begin]))
    saved: Saved | None = None
    at, counter = begin, 0
    while at + _LENGTH.size <= len(content):
        (size,) = _LENGTH.unpack_from(content, at)
        packet = content[at + _LENGTH.size : at + _LENGTH.size + size]
        if len(packet) < size or size > _MAX_RECORD:
            break  # cut off by the crash
        try:
            opener.verify(packet)
            record = _decode(opener.decrypt(packet, counter))
        except (CryptoError, msgspec.MsgspecError):
            return None
        if packet[HEADER_SIZE - 8 : HEADER_SIZE] != counter.to_bytes(8, "big"):
            return None
        at, counter = at + _LENGTH.size + size, counter + 1
        if isinstance(record, _Chain):
            saved = Saved(session, record.chain)
            if record.session != session.to_bytes(8, "big"):
                return None
        elif saved is None:
            return None
        elif isinstance(record, _Entry):
            saved.entries.append(record.wire)
            saved.epoch, saved.group_key = record.epoch, record.key
        else:
            saved.counters.update({(p, c): counter for p, c, counter in record.counters})
    return saved if saved and saved.entries else None
