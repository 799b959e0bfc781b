"""Every call of the API: one table, from which come the routes, what is checked, and the description (`manager.openapi`).

An operation takes a typed body, typed words of its path and query, and a caller with a scope; its `act` calls the manager's functions and says
what they gave as one of `api_types`. No rule is here.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UNSET

from manager import api_types as t
from manager.accounts import Account
from manager.calendar import check_schedule
from manager.callers import Caller, Login, Scope
from manager.challenge import BITS, Proof
from manager.desk import MAX_PATIENCE, Admission
from manager.entrance import SignedIn
from manager.errors import RequestMalformed, SignInNeeded
from manager.hidden import Hidden
from manager.house import House
from manager.keys import ApiKey
from manager.links import Link
from manager.meetings import Meeting
from manager.nodes import NodeHealth
from manager.policy import Policy
from manager.reports import SessionReport, as_csv
from wire.ids import MeetingId, ParticipantId, SessionId

YEAR_2100: Final = 4_102_444_800.0


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a path or query: its pattern, and what is said when it does not match."""

    pattern: str
    what: str
    example: str


WORDS: Final = {
    "meeting": Word("[1-9][0-9]{8}", "a meeting ID has nine digits, the first one not 0", "123456789"),
    "session": Word("[0-9a-f]{16}", "a session ID has 16 hex digits, in lower case", "0123456789abcdef"),
    "number": Word("[1-9][0-9]{0,8}", "a number has one to nine digits, the first one not 0", "17"),
    "wait": Word(r"[0-9]{1,2}(\.[0-9]{1,3})?", f"wait is a number of seconds from 0 to {MAX_PATIENCE:.0f}", "20"),
    "from": Word(r"[0-9]{1,10}", "from is a time in seconds since 1970", "1767225600"),
    "to": Word(r"[0-9]{1,10}", "to is a time in seconds since 1970", "1798761600"),
    "before": Word("[1-9][0-9]{0,8}", "before is a record's number", "1000"),
    "search": Word(r"[^\x00-\x1f]{0,254}", "search is a part of a name or an e-mail address", "ann"),
    "format": Word("json|csv", "format is json or csv", "json"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked. `signed_in`: None where anybody may call."""

    house: House
    now: float
    address: str
    agent: str
    words: dict[str, str]
    body: Any
    signed_in: Caller | None = None

    @property
    def caller(self) -> Caller:
        if self.signed_in is None:
            raise SignInNeeded
        return self.signed_in

    @property
    def meeting(self) -> MeetingId:
        return MeetingId(int(self.words["meeting"]))

    @property
    def session(self) -> SessionId:
        return SessionId(int(self.words["session"], 16))

    @property
    def number(self) -> int:
        return int(self.words["number"])

    @property
    def period(self) -> tuple[float, float]:
        return float(self.words.get("from", "0")), float(self.words.get("to", f"{YEAR_2100:.0f}"))


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is no JSON."""

    content: bytes
    media_type: str
    filename: str


Act = Callable[[Call], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`scope`: what an API key needs; `people`: only who is signed in with a password may call; neither: anybody.
    `replays`: an `Idempotency-Key` makes a repetition return the first answer. `waits`: the answer may take long."""

    method: str
    path: str
    name: str
    summary: str
    act: Act = field(repr=False)
    takes: type[Any] = t.Nothing
    gives: type[Any] | str = t.Done  # a media type for what is no JSON
    status: int = 200
    scope: Scope | None = None
    people: bool = False
    query: tuple[str, ...] = ()
    example: dict[str, Any] = field(default_factory=dict)
    replays: bool = False
    waits: bool = False


OPERATIONS: Final[list[Operation]] = []


def operation(method: str, path: str, summary: str, **rest: Any) -> Callable[[Act], Act]:
    """Put a function into the table, under its own name."""

    def add(act: Act) -> Act:
        OPERATIONS.append(Operation(method, f"/api/v1{path}", act.__name__, summary, act, **rest))
        return act

    return add


KEY: Final = "A" * 43
LINK: Final = "Yk3reRijT7V3pRNirYp5-eOuEs2_xV23X4AEsWr8kZQ"
READ, WRITE, HOST = Scope.MEETINGS_READ, Scope.MEETINGS_WRITE, Scope.HOST


# anybody


@operation("GET", "/health", "Whether the manager and its database answer.", gives=t.Health)
async def health(call: Call) -> object:
    await call.house.desk.healthy()
    return t.Health("ok")


@operation("POST", "/challenges", "A challenge, for who asks a ticket without an invitation.", gives=t.ChallengeMade)
async def make_challenge(call: Call) -> object:
    return t.ChallengeMade(call.house.desk.challenge(), BITS)


@operation(
    "POST",
    "/tickets",
    "A guest's ticket. With the invitation, `wait` holds the call until the meeting opens.",
    takes=t.AskTicket,
    gives=t.TicketGiven,
    query=("wait",),
    waits=True,
    example={"meeting_id": 123456789, "invite": "0123456789abcdef"},
)
async def ask_ticket(call: Call) -> object:
    return _ticket(await call.house.desk.ticket(*_guest(call)))


@operation(
    "POST",
    "/looks",
    "Whether a ticket would be given now. None is taken; it is refused for the same reasons and under the same throttles.",
    takes=t.AskTicket,
    query=("wait",),
    waits=True,
    example={"meeting_id": 123456789, "invite": "0123456789abcdef"},
)
async def look(call: Call) -> object:
    await call.house.desk.look(*_guest(call))
    return t.Done()


def _guest(call: Call) -> tuple[MeetingId, Hidden | None, str, float, Proof | None]:
    """Which meeting, with what, from where, and how long the guest waits."""
    patience = float(call.words.get("wait", "0"))
    if patience > MAX_PATIENCE:
        raise RequestMalformed(WORDS["wait"].what)
    body: t.AskTicket = call.body
    invite = None if body.invite is None else Hidden(bytes.fromhex(body.invite))
    proof = None if body.proof is None else Proof(body.proof.challenge, body.proof.nonce)
    return MeetingId(body.meeting_id), invite, call.address, patience, proof


@operation(
    "POST",
    "/password-strength",
    "How guessable a password is. It is not kept.",
    takes=t.Guess,
    gives=t.Rating,
    example={"password": "correct horse 7"},
)
async def rate_password(call: Call) -> object:
    body: t.Guess = call.body
    return t.Rating(*await call.house.entrance.rate(body.password, body.email, body.name))


# signing in


@operation(
    "POST", "/sign-in", "The first step: e-mail and password.", takes=t.SignIn, gives=t.SignedInAs,
    example={"email": "ann@example.org", "password": "correct horse 7"},
)  # fmt: skip
async def sign_in(call: Call) -> object:
    return _signed_in(await call.house.entrance.sign_in(call.body.email, call.body.password, call.address, call.agent))


@operation(
    "POST",
    "/sign-in/code",
    "The second step: a TOTP or recovery code.",
    takes=t.Code,
    gives=t.SignedInAs,
    people=True,
    example={"code": "123456"},
)
async def use_code(call: Call) -> object:
    return _signed_in(await call.house.entrance.use_code(call.caller, call.body.code))


@operation("POST", "/sign-in/passkey/options", "What a browser needs to use a passkey.", gives=t.Options, people=True)
async def ask_passkey(call: Call) -> object:
    return t.Options(json.loads(await call.house.entrance.ask_passkey(call.caller)))


@operation(
    "POST", "/sign-in/passkey", "The second step: a passkey.", takes=t.PasskeyAnswer, gives=t.SignedInAs, people=True, example={"answer": "{}"}
)
async def use_passkey(call: Call) -> object:
    return _signed_in(await call.house.entrance.use_passkey(call.caller, call.body.answer))


@operation("POST", "/sign-out", "End this sign-in.", people=True)
async def sign_out(call: Call) -> object:
    await call.house.entrance.sign_out(call.caller)
    return t.Done()


@operation(
    "POST", "/sign-up", "Ask for an account; a letter goes to the address. Only if the policy allows it.", takes=t.SignUp, status=202,
    example={"email": "ann@example.org", "name": "Ann", "password": "correct horse 7", "zone": "Europe/Paris", "language": "fr"},
)  # fmt: skip
async def sign_up(call: Call) -> object:
    body: t.SignUp = call.body
    await call.house.entrance.sign_up(body.email, body.name, body.password, call.address, zone=body.zone, language=body.language)
    return t.Done()


@operation(
    "POST", "/links/look", "What a one-time link is about. It is not used up.", takes=t.LinkText, gives=t.LinkAbout, example={"link": LINK}
)
async def look_at_link(call: Call) -> object:
    link = await call.house.entrance.link(call.body.link)
    return t.LinkAbout(link.purpose.value, link.email, link.name, link.role.value, link.expires_at)


@operation(
    "POST", "/links/accept", "Take up an invitation to an account.", takes=t.Accept, gives=t.SignedInAs, status=201,
    example={"link": LINK, "name": "Ann", "password": "correct horse 7"},
)  # fmt: skip
async def accept_invitation(call: Call) -> object:
    b: t.Accept = call.body
    made = await call.house.entrance.accept(b.link, b.name, b.password, call.address, call.agent, zone=b.zone, language=b.language)
    return _signed_in(made)


@operation("POST", "/links/confirm", "Confirm an e-mail address.", takes=t.Confirm, gives=t.SignedInAs, example={"link": LINK})
async def confirm_address(call: Call) -> object:
    body: t.Confirm = call.body
    return _signed_in(await call.house.entrance.confirm(body.link, call.address, call.agent, zone=body.zone, language=body.language))


@operation(
    "POST", "/password/forgot", "Ask for a letter to choose a new password.", takes=t.Email, status=202, example={"email": "ann@example.org"}
)
async def forgot_password(call: Call) -> object:
    await call.house.entrance.forgot(call.body.email, call.address)
    return t.Done()


@operation(
    "POST", "/password/reset", "Choose a new password, by that letter's link.", takes=t.Reset, gives=t.SignedInAs,
    example={"link": LINK, "password": "correct horse 8"},
)  # fmt: skip
async def reset_password(call: Call) -> object:
    return _signed_in(await call.house.entrance.reset(call.body.link, call.body.password, call.address, call.agent))


# one's own account


@operation("GET", "/account", "One's own account.", gives=t.AccountShown, scope=Scope.ACCOUNT_READ)
async def own_account(call: Call) -> object:
    call.caller.require(Scope.ACCOUNT_READ)
    return _account(call.caller.account)


@operation(
    "PATCH",
    "/account",
    "Change name, zone or language.",
    takes=t.Profile,
    gives=t.AccountShown,
    scope=Scope.ACCOUNT_WRITE,
    example={"zone": "Asia/Tokyo"},
)
async def change_profile(call: Call) -> object:
    body: t.Profile = call.body
    return _account((await call.house.own.change_profile(call.caller, name=body.name, zone=body.zone, language=body.language)).account)


@operation("DELETE", "/account", "Delete one's own account. Needs a fresh proof.", people=True)
async def delete_own_account(call: Call) -> object:
    await call.house.own.delete(call.caller)
    return t.Done()


@operation(
    "POST",
    "/account/proof",
    "Show again who one is; it holds for 15 minutes.",
    takes=t.Prove,
    people=True,
    example={"password": "correct horse 7"},
)
async def prove(call: Call) -> object:
    await call.house.own.prove(call.caller, call.body.password, call.body.code)
    return t.Done()


@operation(
    "POST", "/account/password", "A new password; every other sign-in ends.", takes=t.NewPassword, gives=t.SignedInAs, people=True,
    example={"current": "correct horse 7", "new": "correct horse 8", "code": "123456"},
)  # fmt: skip
async def change_password(call: Call) -> object:
    return _signed_in(await call.house.own.change_password(call.caller, call.body.current, call.body.new, call.body.code))


@operation(
    "POST",
    "/account/email",
    "Ask for another e-mail address; a letter goes there.",
    takes=t.Email,
    status=202,
    people=True,
    example={"email": "ann@example.net"},
)
async def change_email(call: Call) -> object:
    await call.house.own.change_email(call.caller, call.body.email)
    return t.Done()


@operation("GET", "/account/security", "One's second factors.", gives=t.SecurityShown, people=True)
async def own_security(call: Call) -> object:
    found = await call.house.own.security(call.caller)
    passkeys = [t.PasskeyShown(key.id, key.name, key.created_at, key.used_at) for key in found.passkeys]
    return t.SecurityShown(found.has_totp, passkeys, found.recovery_codes_left)


@operation("POST", "/account/totp", "A key for an authenticator. Needs a fresh proof.", gives=t.TotpKey, people=True)
async def begin_totp(call: Call) -> object:
    setup = await call.house.own.begin_totp(call.caller)
    return t.TotpKey(setup.key, setup.uri, setup.svg)


@operation(
    "PUT",
    "/account/totp",
    "Keep that key: the authenticator shows this code.",
    takes=t.Code,
    gives=t.EnrolledAs,
    people=True,
    example={"code": "123456"},
)
async def finish_totp(call: Call) -> object:
    made = await call.house.own.finish_totp(call.caller, call.body.code)
    return t.EnrolledAs(made.recovery_codes, _token(made.signed_in), _stage(made.signed_in))


@operation("DELETE", "/account/totp", "Remove the authenticator. Needs a fresh proof.", people=True)
async def remove_totp(call: Call) -> object:
    await call.house.own.remove_totp(call.caller)
    return t.Done()


@operation("POST", "/account/passkeys/options", "What a browser needs to make a passkey. Needs a fresh proof.", gives=t.Options, people=True)
async def begin_passkey(call: Call) -> object:
    return t.Options(json.loads(await call.house.own.begin_passkey(call.caller)))


@operation(
    "POST", "/account/passkeys", "Keep the passkey that the browser made.", takes=t.PasskeyAnswer, gives=t.EnrolledAs, status=201, people=True,
    example={"answer": "{}", "name": "laptop"},
)  # fmt: skip
async def finish_passkey(call: Call) -> object:
    made = await call.house.own.finish_passkey(call.caller, call.body.answer, call.body.name)
    return t.EnrolledAs(made.recovery_codes, _token(made.signed_in), _stage(made.signed_in))


@operation("DELETE", "/account/passkeys/{number}", "Remove a passkey. Needs a fresh proof.", people=True)
async def remove_passkey(call: Call) -> object:
    await call.house.own.remove_passkey(call.caller, call.number)
    return t.Done()


@operation(
    "POST", "/account/recovery-codes", "Ten new recovery codes; the old ones are void. Needs a fresh proof.", gives=t.RecoveryCodes, people=True
)
async def new_recovery_codes(call: Call) -> object:
    return t.RecoveryCodes(await call.house.own.new_recovery_codes(call.caller))


@operation("GET", "/account/sign-ins", "Where one is signed in.", gives=t.SignInList, scope=Scope.ACCOUNT_READ)
async def list_sign_ins(call: Call) -> object:
    return t.SignInList([_login(login, call.caller) for login in await call.house.own.logins(call.caller)])


@operation("DELETE", "/account/sign-ins", "End all sign-ins but this one.", gives=t.Ended, scope=Scope.ACCOUNT_WRITE)
async def end_other_sign_ins(call: Call) -> object:
    return t.Ended(await call.house.own.end_other_logins(call.caller))


@operation("DELETE", "/account/sign-ins/{number}", "End one sign-in.", scope=Scope.ACCOUNT_WRITE)
async def end_sign_in(call: Call) -> object:
    await call.house.own.end_login(call.caller, call.number)
    return t.Done()


@operation("GET", "/account/keys", "One's API keys.", gives=t.KeyList, scope=Scope.ACCOUNT_READ)
async def list_keys(call: Call) -> object:
    return t.KeyList([_key(key) for key in await call.house.own.keys(call.caller)])


@operation(
    "POST", "/account/keys", "A new API key, shown once. Needs a fresh proof.", takes=t.NewKey, gives=t.KeyMade, status=201, people=True,
    example={"name": "build server", "scopes": ["meetings:read", "meetings:write"], "days": 90},
)  # fmt: skip
async def make_key(call: Call) -> object:
    made, text = await call.house.own.make_key(call.caller, call.body.name, call.body.scopes, call.body.days)
    return t.KeyMade(text, _key(made))


@operation("DELETE", "/account/keys/{number}", "Remove an API key.", scope=Scope.ACCOUNT_WRITE)
async def remove_key(call: Call) -> object:
    await call.house.own.remove_key(call.caller, call.number)
    return t.Done()


@operation("GET", "/account/export", "Everything that is kept about oneself.", gives=t.Exported, scope=Scope.ACCOUNT_READ)
async def export_account(call: Call) -> object:
    return t.Exported(await call.house.own.export(call.caller))


# meetings


@operation(
    "POST", "/meetings", "Schedule a meeting.", takes=t.Schedule, gives=t.MeetingShown, status=201, scope=WRITE, replays=True,
    example={
        "title": "Weekly", "meeting_key": KEY, "starts": "2026-03-02T15:00", "zone": "Europe/Paris", "minutes": 45,
        "repeat": {"every": "week", "times": 10}, "features_off": ["recording"],
    },
)  # fmt: skip
async def schedule(call: Call) -> object:
    body: t.Schedule = call.body
    when = check_schedule(body.starts, body.zone, body.minutes, body.repeat)
    key = None if body.meeting_key is None else _meeting_key_untrusted(body.meeting_key)
    made = await call.house.diary.schedule(call.caller, body.title, when=when, meeting_key=key, features_off=body.features_off)
    return _meeting(call, made)


@operation("GET", "/meetings", "One's meetings, the newest first, 500 at most.", gives=t.MeetingList, scope=READ)
async def list_meetings(call: Call) -> object:
    return t.MeetingList([_meeting(call, meeting) for meeting in await call.house.diary.meetings(call.caller)])


@operation("GET", "/meetings/{meeting}", "One meeting.", gives=t.MeetingShown, scope=READ)
async def show_meeting(call: Call) -> object:
    return _meeting(call, await call.house.diary.meeting(call.caller, call.meeting))


@operation(
    "PATCH", "/meetings/{meeting}", "Change a meeting.", takes=t.Edit, gives=t.MeetingShown, scope=WRITE, example={"title": "Every week"}
)
async def edit_meeting(call: Call) -> object:
    body: t.Edit = call.body
    when = None if body.starts is UNSET else check_schedule(body.starts, body.zone, body.minutes, body.repeat)
    edited = await call.house.diary.edit(call.caller, call.meeting, title=body.title, when=when, features_off=body.features_off)
    return _meeting(call, edited)


@operation("POST", "/meetings/{meeting}/cancel", "It will not take place.", gives=t.MeetingShown, scope=WRITE)
async def cancel_meeting(call: Call) -> object:
    return _meeting(call, await call.house.diary.cancel(call.caller, call.meeting))


@operation(
    "PUT", "/meetings/{meeting}/key", "The public meeting key, by the endpoint that will host.", takes=t.MeetingKey, gives=t.MeetingShown,
    scope=WRITE, example={"meeting_key": KEY},
)  # fmt: skip
async def set_meeting_key(call: Call) -> object:
    return _meeting(call, await call.house.diary.set_key(call.caller, call.meeting, _meeting_key_untrusted(call.body.meeting_key)))


@operation("GET", "/meetings/{meeting}/entry.ics", "The calendar entry, RFC 5545, without a password.", gives="text/calendar", scope=READ)
async def meeting_entry(call: Call) -> object:
    entry = await call.house.diary.entry(call.caller, call.meeting)
    return Text(entry, "text/calendar; charset=utf-8", f"parley-{call.meeting}.ics")


@operation(
    "POST", "/meetings/{meeting}/invitations", "Letters to guests, with ID and invitation; of a cancelled meeting, its cancellation.",
    takes=t.Guests, gives=t.LettersSent, status=202, scope=WRITE, replays=True, example={"guests": ["bob@example.org"]},
)  # fmt: skip
async def invite_guests(call: Call) -> object:
    return t.LettersSent(await call.house.diary.invite(call.caller, call.meeting, call.body.guests))


@operation("POST", "/meetings/{meeting}/open", "The organizer's ticket: open the meeting, or come back to it.", gives=t.TicketGiven, scope=HOST)
async def open_meeting(call: Call) -> object:
    return _ticket(await call.house.desk.open(call.caller, call.meeting))


@operation("GET", "/sessions", "One's own sessions: attendance and duration.", gives=t.SessionList, scope=READ, query=("from", "to"))
async def own_sessions(call: Call) -> object:
    return t.SessionList([_report(made, call.now) for made in await call.house.diary.sessions(call.caller, *call.period)])


@operation("POST", "/sessions/{session}/end", "End a session for everyone.", scope=HOST)
async def end_session(call: Call) -> object:
    await call.house.desk.end(call.caller, call.session)
    return t.Done()


@operation(
    "POST", "/sessions/{session}/revoke", "Make a participant's token worthless.", takes=t.Revoke, scope=HOST, example={"participant": 17}
)
async def revoke_participant(call: Call) -> object:
    await call.house.desk.revoke(call.caller, call.session, ParticipantId(call.body.participant))
    return t.Done()


# administration

SEE, RULE = Scope.ADMIN_READ, Scope.ADMIN_WRITE


@operation("GET", "/admin/accounts", "The accounts that one may rule, by name.", gives=t.AccountList, scope=SEE, query=("search",))
async def list_accounts(call: Call) -> object:
    found = await call.house.administration.accounts(call.caller, call.words.get("search", ""))
    return t.AccountList([_account(account) for account in found])


@operation("GET", "/admin/accounts/{number}", "One account.", gives=t.AccountShown, scope=SEE)
async def show_account(call: Call) -> object:
    return _account(await call.house.administration.account(call.caller, call.number))


@operation(
    "PATCH", "/admin/accounts/{number}", "Change role, life, features or the demand for a second factor.", takes=t.ChangeAccount,
    gives=t.AccountShown, scope=RULE, example={"features_off": ["remote-control"]},
)  # fmt: skip
async def change_account(call: Call) -> object:
    body: t.ChangeAccount = call.body
    changed = await call.house.administration.change_account(
        call.caller, call.number, role=body.role, active=body.active, features_off=body.features_off, factor_required=body.factor_required
    )
    return _account(changed)


@operation("DELETE", "/admin/accounts/{number}", "Delete an account.", scope=RULE)
async def delete_account(call: Call) -> object:
    await call.house.administration.delete_account(call.caller, call.number)
    return t.Done()


@operation("POST", "/admin/accounts/{number}/reset-factors", "Take all second factors away, for who lost them.", scope=RULE)
async def reset_factors(call: Call) -> object:
    await call.house.administration.reset_factors(call.caller, call.number)
    return t.Done()


@operation("POST", "/admin/accounts/{number}/sign-out", "End all sign-ins of an account.", gives=t.Ended, scope=RULE)
async def sign_account_out(call: Call) -> object:
    return t.Ended(await call.house.administration.end_logins(call.caller, call.number))


@operation("GET", "/admin/invitations", "Invitations that nobody has taken up yet.", gives=t.InvitationList, scope=SEE)
async def list_invitations(call: Call) -> object:
    return t.InvitationList([_invitation(link) for link in await call.house.administration.invitations(call.caller)])


@operation(
    "POST", "/admin/invitations", "Invite somebody to an account, by letter.", takes=t.Invite, gives=t.InvitationShown, status=201,
    scope=RULE, replays=True, example={"email": "bob@example.org", "name": "Bob", "role": "organizer", "language": "en"},
)  # fmt: skip
async def invite_account(call: Call) -> object:
    body: t.Invite = call.body
    return _invitation(await call.house.administration.invite(call.caller, body.email, body.name, body.role, language=body.language))


@operation("DELETE", "/admin/invitations/{number}", "Void an invitation.", scope=RULE)
async def withdraw_invitation(call: Call) -> object:
    await call.house.administration.withdraw(call.caller, call.number)
    return t.Done()


@operation("GET", "/admin/policy", "What holds for everybody.", gives=Policy, scope=SEE)
async def show_policy(call: Call) -> object:
    return await call.house.administration.policy(call.caller)


@operation(
    "PUT",
    "/admin/policy",
    "Change what holds for everybody.",
    takes=Policy,
    gives=Policy,
    scope=RULE,
    example={"second_factor": "administrators"},
)
async def set_policy(call: Call) -> object:
    return await call.house.administration.set_policy(call.caller, call.body)


@operation(
    "GET",
    "/admin/sessions",
    "All sessions: attendance and duration, as JSON or CSV.",
    gives=t.SessionList,
    scope=SEE,
    query=("from", "to", "format"),
)
async def all_sessions(call: Call) -> object:
    found = await call.house.administration.sessions(call.caller, *call.period)
    if call.words.get("format") == "csv":
        return Text(as_csv(found, call.now).encode(), "text/csv; charset=utf-8", "parley-sessions.csv")
    return t.SessionList([_report(made, call.now) for made in found])


@operation("GET", "/admin/audit", "The audit log, the newest first, 100 records at most.", gives=t.RecordList, scope=SEE, query=("before",))
async def read_audit(call: Call) -> object:
    before = call.words.get("before")
    records = await call.house.administration.audit(call.caller, None if before is None else int(before))
    shown = [t.RecordShown(r.number, r.at, r.account, r.address, r.act, r.subject, r.detail, r.digest.hex()) for r in records]
    return t.RecordList(shown)


@operation("GET", "/admin/audit/head", "Recompute the whole chain; what to note of it elsewhere.", gives=t.AuditVerified, scope=SEE)
async def verify_audit(call: Call) -> object:
    state = await call.house.administration.verify_audit(call.caller)
    return t.AuditVerified(state.records, state.head)


@operation("GET", "/admin/nodes", "The overlay's relays, with their health.", gives=t.NodeList, scope=SEE)
async def list_nodes(call: Call) -> object:
    return t.NodeList([_node(node) for node in call.house.administration.nodes(call.caller)])


# how things are said


def word_untrusted(name: str, text: str) -> str:
    """A word of a path or query. Raises `RequestMalformed`."""
    word = WORDS[name]
    if re.fullmatch(word.pattern, text, re.ASCII) is None:
        raise RequestMalformed(word.what, fields={name: word.what})
    return text


def _meeting_key_untrusted(text: str) -> bytes:
    key = urlsafe_b64decode(text + "=")
    if base64url(key) != text:  # stray bits in the last character
        what = "a meeting key is 32 bytes in base64url without padding, 43 characters"
        raise RequestMalformed(fields={"meeting_key": what})
    return key


def base64url(data: bytes) -> str:
    """Without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(signed_in: SignedIn) -> str:
    return f"session_{signed_in.cookie}"


def _stage(signed_in: SignedIn) -> str:
    assert signed_in.caller.login is not None
    return signed_in.caller.login.stage.value


def _signed_in(signed_in: SignedIn) -> t.SignedInAs:
    assert signed_in.caller.login is not None
    return t.SignedInAs(_token(signed_in), _stage(signed_in), signed_in.caller.login.csrf)


def _account(account: Account) -> t.AccountShown:
    return t.AccountShown(
        account.id,
        account.email,
        account.name,
        account.role.value,
        account.active,
        sorted(account.features),
        sorted(account.features_off),
        account.has_totp,
        account.passkeys,
        account.factor_required,
        account.zone,
        account.language,
        account.created_at,
    )


def _login(login: Login, caller: Caller) -> t.SignInShown:
    current = caller.login is not None and caller.login.id == login.id
    return t.SignInShown(login.id, current, login.address, login.agent, login.created_at, login.used_at)


def _key(key: ApiKey) -> t.KeyShown:
    return t.KeyShown(key.id, key.name, sorted(key.scopes), key.created_at, key.used_at, key.expires_at)


def _invitation(link: Link) -> t.InvitationShown:
    return t.InvitationShown(link.id, link.email, link.name, link.role.value, link.created_at, link.expires_at)


def _report(made: SessionReport, now: float) -> t.SessionShown:
    return t.SessionShown(
        made.meeting, made.title, made.organizer, made.organizer_name, made.opened_at, made.ended_at, made.minutes(now), made.attendees
    )


def _node(node: NodeHealth) -> t.NodeShown:
    return t.NodeShown(
        node.node, node.state.value, node.links, node.sessions, node.addresses, node.linked_at, node.heard_at, node.certificate_ends_at
    )


def _meeting(call: Call, meeting: Meeting) -> t.MeetingShown:
    when = meeting.schedule
    begins, ends = when.next(call.now) or (None, None)
    return t.MeetingShown(
        meeting_id=meeting.number,
        invite=meeting.invite.reveal().hex(),
        link=call.house.diary.link(meeting),
        title=meeting.title,
        meeting_key=None if meeting.meeting_key is None else base64url(meeting.meeting_key),
        state=meeting.state.value,
        coming=meeting.coming(call.now),
        starts=None if when.starts is None else f"{when.starts:%Y-%m-%dT%H:%M}",
        zone=when.zone,
        minutes=when.minutes,
        repeat=when.repeat,
        begins_at=begins,
        ends_at=ends,
        features_off=sorted(meeting.features_off),
        session=None if meeting.session is None else f"{meeting.session:016x}",
        created_at=meeting.created_at,
        changed_at=meeting.changed_at,
    )


def _ticket(admission: Admission) -> t.TicketGiven:
    ticket = admission.ticket
    return t.TicketGiven(
        session=f"{ticket.session:016x}",
        participant=ticket.participant,
        role=ticket.role.value,
        token=ticket.token.reveal().hex(),
        secret=ticket.secret.reveal().hex(),
        meeting_id=ticket.meeting,
        title=ticket.title,
        meeting_key=base64url(ticket.meeting_key),
        relays=[t.RelayAddresses(info.node, [(host, port) for host, port in info.addresses]) for info in admission.relays],
        cluster=admission.cluster,
        features=sorted(ticket.features),
    )
