"""What an endpoint keeps on this machine: scheduled meetings, and which `parley up` runs here. All of it is the user's alone.

    $XDG_STATE_HOME/parley/            (~/.local/state/parley)
      meetings/123456789.json          a scheduled meeting with its key and password, until it has ended
      meetings/123456789.session       a session that runs: sealed, so that its organizer can come back after a crash (`endpoint.journal`)
      meetings/123456789.chair         the same of a session whose organizer's role came to a guest here
      known.json                       which organizer's key each meeting had that was joined from here
      up/.lock                         held while directories are made and swept
      up/RANDOM/lock                   held by the `parley up` that lives there, as long as it lives
      up/RANDOM/running.json           how `parley join` finds it: manager, CA, meeting. No secret is in it
      up/RANDOM/…                      its certificates, database and logs

A held lock is what says that a run is alive: the kernel lets it go however the run ends, and a process number that is used again cannot
hold it. The next run removes what dead ones left. Files are written whole or not at all, mode 0600, in directories of mode 0700.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from crypto.errors import BadLength
from crypto.signing import SigningKey, fingerprint
from endpoint.errors import EndpointError
from endpoint.invitation import invitation_for
from endpoint.sdk import Meeting
from wire.ids import MEETING_IDS, MeetingId, format_meeting_id

MAX_PINS: Final = 1000
"""Meetings whose key is remembered."""
LOCK: Final = "lock"
RUNNING: Final = "running.json"


class HomeError(EndpointError):
    name: ClassVar[str] = "home-unusable"
    sentence: ClassVar[str] = "Parley cannot keep its files on this machine."


class NotKept(EndpointError):
    name: ClassVar[str] = "meeting-not-kept"
    sentence: ClassVar[str] = "The key of this meeting is not on this machine: it is where `parley schedule` ran, until the meeting has ended."


def state_directory() -> Path:
    """`parley` below $XDG_STATE_HOME (an absolute path, by the XDG specification; another one is passed over)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "parley"


def write_private(path: Path, content: bytes) -> None:
    """The whole content or nothing, mode 0600, in a directory of mode 0700. Raises HomeError."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _private_directory(path.parent)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise _unusable(path, error) from None


def _private_directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)


def _unusable(path: Path, error: OSError) -> HomeError:
    return HomeError(f"{path}: {error.strerror}. Make room there, or name another place in XDG_STATE_HOME.")


# scheduled meetings


class _Kept(msgspec.Struct, frozen=True):
    meeting_id: int
    title: str
    manager: str
    site: str
    ca: str
    invite: str
    password: str
    seed: str

    def __repr__(self) -> str:
        return f"_Kept({self.meeting_id})"


@dataclass(frozen=True, slots=True)
class KeptMeeting:
    """A scheduled meeting, and the CA of its cluster."""

    meeting: Meeting
    ca: Path


def keep(kept: KeptMeeting) -> Path:
    """Write it down; the file. Raises HomeError."""
    meeting, invitation = kept.meeting, kept.meeting.invitation
    content = _Kept(
        invitation.meeting,
        meeting.title,
        meeting.manager,
        invitation.site,
        os.path.abspath(kept.ca),
        invitation.invite or "",
        invitation.password or "",
        meeting.seed.hex(),
    )
    path = _kept_path(invitation.meeting)
    write_private(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    return path


def kept(meeting: MeetingId) -> KeptMeeting:
    """A meeting that was scheduled here. Raises NotKept, HomeError."""
    path = _kept_path(meeting)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Kept)
        seed = bytes.fromhex(found.seed)
    except FileNotFoundError:
        raise NotKept(
            f"The key of {format_meeting_id(meeting)} is not on this machine: it is where `parley schedule` ran, until the meeting has ended."
        ) from None
    except OSError as error:
        raise _unusable(path, error) from None
    except (msgspec.MsgspecError, ValueError):
        raise HomeError(f"{path} is damaged. Restore it, or schedule the meeting anew.") from None
    invitation = invitation_for(meeting, found.site, found.invite, found.password, _public(seed, path))
    return KeptMeeting(Meeting(invitation, found.title, seed, found.manager), Path(found.ca))


def forget(meeting: MeetingId) -> None:
    """It has ended: its key and password are worthless, and go."""
    for path in (_kept_path(meeting), journal_path(meeting), chair_path(meeting)):
        with suppress(OSError):
            path.unlink()


def journal_path(meeting: MeetingId) -> Path:
    """Where the session of this meeting is written down while it runs here."""
    return state_directory() / "meetings" / f"{meeting}.session"


def chair_path(meeting: MeetingId) -> Path:
    """Where its session is written down once the organizer's role has come to a guest here."""
    return state_directory() / "meetings" / f"{meeting}.chair"


# organizers' keys


class Known(StrEnum):
    """Whether the organizer's key of a meeting is the one that it had before."""

    NEW = "new"
    SAME = "same"
    CHANGED = "changed"


def pin(site: str, meeting: MeetingId, meeting_key: bytes) -> Known:
    """Remember the key, and say whether it was another one before. A file that cannot be used remembers nothing."""
    path, name, shown = state_directory() / "known.json", f"{site}/{meeting}", fingerprint(meeting_key)
    try:
        pins = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        pins = {}
    before = pins.pop(name, None)
    pins[name] = shown
    with suppress(HomeError):
        write_private(path, msgspec.json.encode(dict(list(pins.items())[-MAX_PINS:])))
    return Known.NEW if before is None else Known.SAME if before == shown else Known.CHANGED


def _kept_path(meeting: MeetingId) -> Path:
    assert meeting in MEETING_IDS
    return state_directory() / "meetings" / f"{meeting}.json"


def _public(seed: bytes, path: Path) -> bytes:
    try:
        return SigningKey.from_seed(seed).public
    except BadLength:
        raise HomeError(f"{path} is damaged. Restore it, or schedule the meeting anew.") from None


# runs of `parley up`


class RunningMeeting(msgspec.Struct, frozen=True):
    """What a `parley up` says to other programs of its user."""

    meeting_id: int
    manager: str
    ca: str
    pid: int
    title: str = ""


@contextmanager
def private_run() -> Iterator[Path]:
    """A fresh directory for one `parley up`, removed at the end; what dead runs left is removed before. Raises HomeError."""
    runs = state_directory() / "up"
    try:
        with _sweeping(runs):
            directory = runs / secrets.token_hex(4)
            directory.mkdir(mode=0o700)
            lock = _take_lock(directory / LOCK, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
    except OSError as error:
        raise _unusable(runs, error) from None
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def announce(directory: Path, running: RunningMeeting) -> None:
    """Let `parley join` on this machine find the meeting. Raises HomeError."""
    write_private(directory / RUNNING, msgspec.json.encode(running))


def running_meetings() -> list[RunningMeeting]:
    """Of all runs that are alive, the newest first."""
    found: list[tuple[float, RunningMeeting]] = []
    for path in (state_directory() / "up").glob(f"*/{RUNNING}"):
        try:
            if not _alive(path.parent):
                continue
            found.append((path.stat().st_mtime, msgspec.json.decode(path.read_bytes(), type=RunningMeeting)))
        except (OSError, msgspec.MsgspecError):
            continue  # it is ending at this moment
    return [running for _, running in sorted(found, key=lambda item: item[0], reverse=True)]


@contextmanager
def _sweeping(runs: Path) -> Iterator[None]:
    """Alone among all starting runs: dead ones are removed, and a new one can lock its directory before anybody judges it."""
    _private_directory(runs)
    guard = os.open(runs / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for directory in runs.iterdir():
            if directory.is_dir() and not _alive(directory):
                shutil.rmtree(directory, ignore_errors=True)
        yield
    finally:
        os.close(guard)


def _alive(directory: Path) -> bool:
    """Whether a process holds the directory's lock. Asked with a shared one, so that two who ask do not take each other for a run."""
    try:
        os.close(_take_lock(directory / LOCK, os.O_RDONLY, fcntl.LOCK_SH))
    except BlockingIOError:
        return True
    except OSError:
        return False  # none was ever taken, or the run is removing its files
    return False


def _take_lock(path: Path, flags: int, kind: int) -> int:
    """The descriptor that holds the lock, until it is closed. Raises BlockingIOError if another process is in the way, OSError."""
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
