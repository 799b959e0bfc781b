"""Every refusal of the manager, by name. Nothing here knows HTTP; `manager.api` says which status each name has.

    ParleyError
    └── Refusal                     the manager says no, and why
        ├── RequestMalformed        request-malformed     the caller's bytes are not what was asked for
        ├── KeyRefused              key-refused           no API key, or a wrong one
        ├── ScopeMissing            scope-missing         a right key that may not do this
        ├── NotPermitted            not-permitted         a role that may not do this
        ├── SignInRefused           sign-in-refused       e-mail, password, code or passkey: never which
        ├── SignInLocked            sign-in-locked        too many failures; the same whether the account exists
        ├── SignInNeeded            sign-in-needed        nobody is signed in, or no longer
        ├── StepMissing             step-missing          signed in by half: a code, a new password or a second factor is due
        ├── ProofNeeded             proof-needed          signed in, but long ago: password and factor once more
        ├── AddressNotAllowed       address-not-allowed
        ├── SignUpClosed            sign-up-closed
        ├── LinkWorthless           link-worthless        a one-time link that was used, replaced or is too old
        ├── ChallengeFailed         challenge-failed      a proof of work that proves nothing
        ├── AccountExists           account-exists        told to administrators alone
        ├── AccountUnknown          account-unknown
        ├── LastAdministrator       last-administrator
        ├── MeetingRunning          meeting-running       told only to the meeting's own organizer
        ├── MeetingKeyMissing       meeting-key-missing   told only to the meeting's own organizer
        ├── IdempotencyConflict     idempotency-conflict
        ├── MailFailed              mail-failed
        ├── AuditBroken             audit-broken
        ├── BackupUnreadable        backup-unreadable
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

A refusal that passes by itself has `retry_after`, seconds. One of typed input has `fields`: for each field that is wrong, what is wrong.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    """`fields`: what is wrong, by the name of the field. A sentence is always one of a fixed set, so that it can be translated."""

    name = "request-malformed"
    sentence = "The request is not what this address takes; the detail says what is wrong with it."

    def __init__(self, detail: str = "", *, fields: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields or {})
        super().__init__(detail or "; ".join(f"{field}: {problem}" for field, problem in self.fields.items()))


class Fields:
    """Collects what is wrong with each field, so that a person is told all of it at once.

    >>> check = Fields()
    >>> with check("title"):
    ...     raise RequestMalformed("a title has 1 to 200 characters")
    >>> check.problems
    {'title': 'a title has 1 to 200 characters'}
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    @contextmanager
    def __call__(self, field: str) -> Iterator[None]:
        """A `RequestMalformed` from inside belongs to this field."""
        try:
            yield
        except RequestMalformed as wrong:
            self.problems |= wrong.fields or {field: wrong.detail}

    def finish(self) -> None:
        """Raises `RequestMalformed` if anything was wrong."""
        if self.problems:
            raise RequestMalformed(fields=self.problems)


class KeyRefused(Refusal):
    name = "key-refused"
    sentence = "This needs an API key; make one on your account's page, or with `parley manager add-organizer`."


class ScopeMissing(Refusal):
    name = "scope-missing"
    sentence = "This API key may not do that; make one with the scope that the detail names."


class NotPermitted(Refusal):
    name = "not-permitted"
    sentence = "Your account may not do that; ask an administrator."


class SignInRefused(Refusal):
    name = "sign-in-refused"
    sentence = "That did not match. Check the e-mail address, the password or the code."


class SignInLocked(Refusal):
    name = "sign-in-locked"
    sentence = "Too many attempts; wait a little before the next one."


class SignInNeeded(Refusal):
    name = "sign-in-needed"
    sentence = "Sign in first."


class StepMissing(Refusal):
    """`stage`: what is due, a `manager.signin.Stage`."""

    name = "step-missing"
    sentence = "One more step before you are signed in."

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage = stage


class ProofNeeded(Refusal):
    name = "proof-needed"
    sentence = "Show once more that it is you: your password, and your second factor if you have one."


class AddressNotAllowed(Refusal):
    name = "address-not-allowed"
    sentence = "Signing in from this network is not allowed; ask an administrator."


class SignUpClosed(Refusal):
    name = "sign-up-closed"
    sentence = "Accounts are made by invitation here; ask an administrator."


class LinkWorthless(Refusal):
    name = "link-worthless"
    sentence = "This link was used already, or is too old; ask for another one."


class ChallengeFailed(Refusal):
    name = "challenge-failed"
    sentence = "The proof of work does not hold, or is too old; ask for a new challenge."


class AccountExists(Refusal):
    name = "account-exists"
    sentence = "There is an account with this e-mail address."


class AccountUnknown(Refusal):
    name = "account-unknown"
    sentence = "There is no such account."


class LastAdministrator(Refusal):
    name = "last-administrator"
    sentence = "This is the last internal administrator; make another one first."


class MeetingRunning(Refusal):
    name = "meeting-running"
    sentence = "This meeting is running; end it first."


class MeetingKeyMissing(Refusal):
    name = "meeting-key-missing"
    sentence = "No endpoint has made this meeting's key yet; run `parley schedule --adopt` where you will host it."


class IdempotencyConflict(Refusal):
    name = "idempotency-conflict"
    sentence = "This idempotency key was used for another request; use a fresh one."


class MailFailed(Refusal):
    name = "mail-failed"
    sentence = "The mail server did not take the letter; the log says more."


class AuditBroken(Refusal):
    name = "audit-broken"
    sentence = "The audit log was changed; the detail says where."


class BackupUnreadable(Refusal):
    name = "backup-unreadable"
    sentence = "This is no backup of Parley, its passphrase is another one, or it is damaged."


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
