"""What a person has in hand to join: a link, or a meeting ID and a password. And what is true of it: the badge.

    https://HOST/j/123456789/INVITE#PASSWORD.F

INVITE is the manager's, 16 hex digits: its holder passes the throttle. The fragment never reaches a server: PASSWORD (percent-encoded)
is the people's contribution to the secret, F the fingerprint of the organizer's key for this meeting. A link from the manager's site has
no F behind the dot, since the key is made later, by the endpoint that will host: its guests are as sure as those who typed ID and password.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from crypto.signing import fingerprint
from endpoint.errors import MalformedLink
from wire.errors import MalformedMeetingId
from wire.ids import MeetingId, parse_meeting_id_untrusted

_PATH: Final = re.compile(r"/j/([0-9]{9})(?:/([0-9a-f]{16}))?/?", re.ASCII)
_FINGERPRINT: Final = re.compile(r"[a-z2-7]{26}", re.ASCII)
MAX_PASSWORD: Final = 256
SITES: Final = "https://HOST, https://HOST:PORT or, on this machine, http://localhost:PORT"


class Badge(StrEnum):
    """What is true of this session's secrecy against its own operator; every client says it."""

    OPERATOR_PROOF = "operator-proof"
    UNLESS_INVITEE = "operator-proof unless an invitee helps the operator"
    IMPERSONABLE = "end to end, but the operator could impersonate"


@dataclass(frozen=True, slots=True)
class Invitation:
    """`site`: https://HOST of the manager, "" if it was not in what the person had. `expected`: F."""

    meeting: MeetingId
    site: str = ""
    invite: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    expected: str | None = None

    @property
    def badge(self) -> Badge:
        if not self.password:
            return Badge.IMPERSONABLE
        return Badge.OPERATOR_PROOF if self.expected else Badge.UNLESS_INVITEE

    def link(self) -> str:
        """The whole link. It holds the password: for the organizer's eyes and whoever it is given to."""
        invite = f"/{self.invite}" if self.invite else ""
        fragment = f"#{quote(self.password or '', safe='-')}.{self.expected or ''}" if self.expected or self.password else ""
        return f"{self.site}/j/{self.meeting}{invite}{fragment}"


def invitation_for(meeting: MeetingId, site: str, invite: str, password: str, meeting_key: bytes) -> Invitation:
    """The organizer's own, complete."""
    return Invitation(meeting, site, invite, password, fingerprint(meeting_key))


def is_site(text: str) -> bool:
    """Whether this is a manager's address: https://HOST[:PORT], or in clear http://localhost[:PORT], which is this machine itself."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    right = parts.scheme == "https" or (parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1"))
    return right and bool(host) and port != 0 and "@" not in parts.netloc and parts.path in ("", "/") and not parts.query + parts.fragment


def parse_invitation_untrusted(text: str) -> Invitation:
    """What a person typed or pasted: a meeting ID or a link, with or without its fragment. Raises MalformedLink."""
    text = text.strip()
    if "/j/" not in text:
        try:
            return Invitation(parse_meeting_id_untrusted(text))
        except MalformedMeetingId:
            raise MalformedLink from None
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise MalformedLink from None
    path = _PATH.fullmatch(parts.path)
    if path is None or not host or parts.scheme not in ("https", "http") or "@" in parts.netloc or path[1][0] == "0":
        raise MalformedLink
    password = expected = None
    if parts.fragment:
        encoded, dot, named = parts.fragment.rpartition(".")
        expected = named or None
        if not dot or (expected is None and not encoded) or (expected is not None and not _FINGERPRINT.fullmatch(expected)):
            raise MalformedLink("The end of the link is missing: copy the whole link, with everything behind the #.")
        try:
            password = unquote(encoded, errors="strict") or None
        except UnicodeDecodeError:
            raise MalformedLink from None
        if password is not None and len(password) > MAX_PASSWORD:
            raise MalformedLink
    return Invitation(MeetingId(int(path[1])), f"{parts.scheme}://{parts.netloc}", path[2], password, expected)
