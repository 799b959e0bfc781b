"""How the API says what the functions of the manager gave: their values as types of `api_types`."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from manager import api_types as t
from manager.accounts import Account
from manager.callers import Caller, Login
from manager.desk import Admission
from manager.entrance import SignedIn
from manager.errors import RequestMalformed
from manager.keys import ApiKey
from manager.links import Link
from manager.meetings import Meeting
from manager.nodes import NodeHealth
from manager.operations.table import Call
from manager.reports import SessionReport


def meeting_key_untrusted(text: str) -> bytes:
    key = urlsafe_b64decode(text + "=")
    if base64url(key) != text:  # stray bits in the last character
        what = "a meeting key is 32 bytes in base64url without padding, 43 characters"
        raise RequestMalformed(fields={"meeting_key": what})
    return key


def base64url(data: bytes) -> str:
    """Without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def token_of(signed_in: SignedIn) -> str:
    return f"session_{signed_in.cookie}"


def stage_of(signed_in: SignedIn) -> str:
    assert signed_in.caller.login is not None
    return signed_in.caller.login.stage.value


def signed_in_as(signed_in: SignedIn) -> t.SignedInAs:
    assert signed_in.caller.login is not None
    return t.SignedInAs(token_of(signed_in), stage_of(signed_in), signed_in.caller.login.csrf)


def account_shown(account: Account) -> t.AccountShown:
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


def login_shown(login: Login, caller: Caller) -> t.SignInShown:
    current = caller.login is not None and caller.login.id == login.id
    return t.SignInShown(login.id, current, login.address, login.agent, login.created_at, login.used_at)


def key_shown(key: ApiKey) -> t.KeyShown:
    return t.KeyShown(key.id, key.name, sorted(key.scopes), key.created_at, key.used_at, key.expires_at)


def invitation_shown(link: Link) -> t.InvitationShown:
    return t.InvitationShown(link.id, link.email, link.name, link.role.value, link.created_at, link.expires_at)


def report_shown(made: SessionReport, now: float) -> t.SessionShown:
    return t.SessionShown(
        made.meeting, made.title, made.organizer, made.organizer_name, made.opened_at, made.ended_at, made.minutes(now), made.attendees
    )


def node_shown(node: NodeHealth) -> t.NodeShown:
    return t.NodeShown(
        node.node, node.state.value, node.links, node.sessions, node.addresses, node.linked_at, node.heard_at, node.certificate_ends_at
    )


def meeting_shown(call: Call, meeting: Meeting) -> t.MeetingShown:
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


def ticket_given(admission: Admission) -> t.TicketGiven:
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
