"""Every refusal of the manager, by name. Nothing here knows HTTP; `manager.api` says which status each name has.

    ParleyError
    └── Refusal                     the manager says no, and why
        ├── RequestMalformed        request-malformed     the caller's bytes are not what was asked for
        ├── KeyRefused              key-refused           no organizer's API key, or a wrong one
        ├── MeetingUnavailable      meeting-unavailable   absent, ended, not open yet: a stranger cannot tell which
        ├── NotOpenYet              not-open-yet          told only to who holds the invitation
        ├── MeetingEnded            meeting-ended         told only to the meeting's own organizer
        ├── SessionUnknown          session-unknown
        ├── SessionFull             session-full
        ├── ParticipantUnknown      participant-unknown
        ├── Throttled               throttled
        ├── NoRelay                 no-relay              no relay is connected, or none answered in time
        ├── OrganizerExists         organizer-exists
        ├── OrganizerUnknown        organizer-unknown
        ├── SettingsMalformed       settings-malformed
        ├── StoreInUse              store-in-use          another manager serves this database
        └── StoreUnavailable        store-unavailable     `cause` says what stands in the way (locked, full, read-only …)

A refusal that passes by itself has `retry_after`, seconds.
"""

from enum import StrEnum
from typing import ClassVar

from wire.errors import ParleyError


class Refusal(ParleyError):
    """The manager says no. `retry_after`: seconds after which asking again makes sense, or None."""

    name: ClassVar[str] = "refused"
    sentence: ClassVar[str] = "The manager refuses this."

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class RequestMalformed(Refusal):
    name = "request-malformed"
    sentence = "The request is not what this address takes; the detail says what is wrong with it."


class KeyRefused(Refusal):
    name = "key-refused"
    sentence = "This needs an organizer's API key; `parley manager add-organizer` makes one."


class MeetingUnavailable(Refusal):
    name = "meeting-unavailable"
    sentence = "There is no such meeting now. Check the ID, or ask the organizer whether the meeting is open."


class NotOpenYet(Refusal):
    name = "not-open-yet"
    sentence = "The organizer has not opened this meeting yet; ask again in a moment."


class MeetingEnded(Refusal):
    name = "meeting-ended"
    sentence = "This meeting has ended; schedule a new one."


class SessionUnknown(Refusal):
    name = "session-unknown"
    sentence = "You have no running session of that ID."


class SessionFull(Refusal):
    name = "session-full"
    sentence = "This session has given out all the tickets that it may."


class ParticipantUnknown(Refusal):
    name = "participant-unknown"
    sentence = "No ticket of this session has that participant ID."


class Throttled(Refusal):
    name = "throttled"
    sentence = "Too many attempts; wait a little, or use the invitation link."


class NoRelay(Refusal):
    name = "no-relay"
    sentence = "No relay is ready to carry this session; start one with `parley mcs`, or ask again in a moment."


class OrganizerExists(Refusal):
    name = "organizer-exists"
    sentence = "There is an organizer of that name; for a new key, remove the organizer and add it again."


class OrganizerUnknown(Refusal):
    name = "organizer-unknown"
    sentence = "There is no organizer of that name; `parley manager list-organizers` shows all."


class SettingsMalformed(Refusal):
    name = "settings-malformed"
    sentence = "The settings cannot be used; the detail says what is wrong."


class StoreInUse(Refusal):
    name = "store-in-use"
    sentence = "Another manager serves this database; stop it first, or choose another file with --store."


class StoreCause(StrEnum):
    """What stands between the manager and its store; for the operator's log, not for callers."""

    LOCKED = "locked"
    FULL = "full"
    READ_ONLY = "read-only"
    UNREACHABLE = "unreachable"
    DAMAGED = "damaged"
    TOO_NEW = "too-new"
    FAILED = "failed"


STORE_SENTENCES: dict[StoreCause, str] = {
    StoreCause.LOCKED: "The database is locked by another program; close what has it open.",
    StoreCause.FULL: "The disk is full; nothing that was acknowledged is lost. Make room and try again.",
    StoreCause.READ_ONLY: "The database cannot be written; check the owner and mode of the file and of its folder.",
    StoreCause.UNREACHABLE: "The database cannot be opened; check that its folder exists and belongs to this user.",
    StoreCause.DAMAGED: "The file is no database of Parley, or it is damaged; restore it from a backup.",
    StoreCause.TOO_NEW: "The database was made by a newer version of Parley; update this one.",
    StoreCause.FAILED: "The database failed; the log says more.",
}


class StoreUnavailable(Refusal):
    """`cause` is for the operator; what a caller reads is the class's own sentence."""

    name = "store-unavailable"
    sentence = "The manager cannot reach its database now; nothing that was acknowledged is lost. Ask again in a moment."

    def __init__(self, cause: StoreCause) -> None:
        super().__init__(STORE_SENTENCES[cause], retry_after=2.0)
        self.cause = cause
