"""The endpoint's calls of the manager's API. What the manager refuses keeps its own name and sentence.

The standard library's client in a thread: a handful of calls a session, and a tenth of the start-up time of an async client.
"""

import base64
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from http.client import HTTPException
from itertools import count
from typing import Any, Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

import trio

from endpoint.errors import MalformedLink, ManagerRefused, ManagerUnreachable
from endpoint.invitation import SITES, is_site, parse_invitation_untrusted
from endpoint.text import clean_line
from endpoint.ticket import Ticket
from wire.ids import MEETING_IDS, MeetingId, SessionId

T = TypeVar("T")

CALL_WITHIN: Final = 15.0
"""Seconds for an ordinary call."""
MAX_ANSWER: Final = 1 << 20
"""Bytes of an answer."""
MAX_NAME: Final = 64
MAX_SENTENCE: Final = 500
"""Characters of a refusal that a person is shown."""
_ANOTHERS: Final = frozenset({2, 19, 20, 21})
"""OpenSSL's codes for a certificate that another authority has signed (X509_V_ERR_…, openssl-verification-options(1))."""
MAX_BITS: Final = 20
"""Of work: seconds. A manager asks for 16."""
MAX_CHALLENGE: Final = 64
LONG_POLL: Final = 20
"""Seconds that the manager is asked to wait for a meeting to open."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    meeting: MeetingId
    invite: str = field(repr=False)
    title: str
    site: str
    """Where its link leads: the address of the pages, which need not be the API's."""


@dataclass(frozen=True, slots=True)
class When:
    """When a meeting takes place. `starts`: YYYY-MM-DDTHH:MM on the wall of `zone`, a name of the IANA database. `every`: day, week or month,
    `times` in all. The manager judges it."""

    starts: str
    zone: str
    minutes: int = 60
    every: str | None = None
    times: int = 10

    def fields(self) -> dict[str, object]:
        repeat = {} if self.every is None else {"repeat": {"every": self.every, "times": self.times}}
        return {"starts": self.starts, "zone": self.zone, "minutes": self.minutes} | repeat


class ManagerApi:
    """Made by `connect`. `key`: an organizer's API key; guests need none."""

    def __init__(self, site: str, opener: OpenerDirector, key: str | None) -> None:
        self._site = site.rstrip("/")
        self._opener = opener
        self._headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        self._limiter = trio.CapacityLimiter(4)

    @classmethod
    @asynccontextmanager
    async def connect(cls, site: str, ca: str | os.PathLike[str], key: str | None = None) -> AsyncIterator["ManagerApi"]:
        """`site`: as `is_site` has it; `ca`: the cluster's authority. A link from the site's pages leads to the site, which has a certificate
        for browsers: so one that the system trusts counts, too, for the host that was asked.

        Raises MalformedLink for anything else, ManagerUnreachable for an authority that cannot be read.
        """
        if not is_site(site):
            raise MalformedLink(f"The manager's address looks like {SITES}.")
        try:
            context = ssl.create_default_context(cafile=os.fspath(ca))
        except OSError as error:
            raise ManagerUnreachable(f"The authority's certificate {ca} cannot be read: {error}") from None
        yield cls(site, _opener(context), key)

    async def schedule(self, title: str, meeting_key: bytes, when: When | None = None) -> Scheduled:
        key = base64.urlsafe_b64encode(meeting_key).rstrip(b"=").decode()
        timed = {} if when is None else when.fields()
        made = await self._post("/api/v1/meetings", {"title": title, "meeting_key": key} | timed)
        return _read(lambda: _scheduled(made))

    async def set_key(self, meeting: MeetingId, meeting_key: bytes) -> Scheduled:
        """Give a meeting that was scheduled on the manager's site its key."""
        key = base64.urlsafe_b64encode(meeting_key).rstrip(b"=").decode()
        made = await self._call("PUT", f"/api/v1/meetings/{meeting}/key", json.dumps({"meeting_key": key}).encode())
        return _read(lambda: _scheduled(made))

    async def open(self, meeting: MeetingId) -> Ticket:
        """The organizer's ticket; opens the session, or comes back into it."""
        made = await self._post(f"/api/v1/meetings/{meeting}/open", {})
        return _read(lambda: Ticket.from_json_untrusted(made))

    async def ticket(self, meeting: MeetingId, invite: str | None, *, patience: float = 0.0) -> Ticket:
        """A guest's ticket. With an invitation it waits up to `patience` seconds for the organizer to open.

        Without one, where strangers are throttled, it does some work instead of waiting: an honest guest gets past a flood of others.
        """
        give_up = trio.current_time() + patience
        asked: dict[str, object] = {"meeting_id": int(meeting)} | ({"invite": invite} if invite else {})
        body, worked = asked, False
        while True:
            left = give_up - trio.current_time()
            wait = max(0, min(LONG_POLL, int(left)))
            try:
                made = await self._post(f"/api/v1/tickets?wait={wait}" if wait else "/api/v1/tickets", body, CALL_WITHIN + wait)
                return _read(lambda made=made: Ticket.from_json_untrusted(made))  # type: ignore[misc]
            except ManagerRefused as refused:
                if refused.name == "throttled" and not invite and not worked:
                    worked = True
                    body = asked | {"proof": await self._work()}
                    continue
                body = asked  # a proof counts once
                if refused.name not in ("not-open-yet", "throttled") or left <= 0:
                    raise
                await trio.sleep(min(max(0.2, 1.0 if refused.retry_after is None else refused.retry_after), max(0.0, left)))

    async def _work(self) -> dict[str, str]:
        """A challenge of the manager, solved in a thread: a tenth of a second. Raises ManagerUnreachable for one that asks too much."""
        made = await self._post("/api/v1/challenges", {})
        challenge, bits = _read(lambda: (str(made["challenge"]), int(made["bits"])))
        if not (0 <= bits <= MAX_BITS and len(challenge) <= MAX_CHALLENGE and challenge.isascii()):
            raise ManagerUnreachable("The manager asks for more work than a guest does; is the address right?")
        nonce = await trio.to_thread.run_sync(solve, challenge, bits, abandon_on_cancel=True, limiter=self._limiter)
        return {"challenge": challenge, "nonce": nonce}

    async def end(self, session: SessionId) -> None:
        await self._post(f"/api/v1/sessions/{session:016x}/end", {})

    async def running_session(self, meeting: MeetingId) -> SessionId | None:
        """The session that one of this organizer's meetings runs now; None if it runs none, or there is no such meeting."""
        listed = await self._call("GET", "/api/v1/meetings")
        sessions = _read(lambda: {int(made["meeting_id"]): made["session"] for made in listed["meetings"]})
        found = sessions.get(meeting)
        return None if found is None else _read(lambda: SessionId(int(found, 16)))

    async def comes_again(self, meeting: MeetingId) -> bool:
        """Whether it repeats, and not all of its times are over: its key must outlive a session."""
        made = await self._call("GET", f"/api/v1/meetings/{meeting}")
        return _read(lambda: made["repeat"] is not None and made["ends_at"] is not None)

    async def _post(self, path: str, body: dict[str, object], seconds: float = CALL_WITHIN) -> Any:
        return await self._call("POST", path, json.dumps(body).encode(), seconds)

    async def _call(self, method: str, path: str, body: bytes | None = None, seconds: float = CALL_WITHIN) -> Any:
        request = Request(self._site + path, body, self._headers, method=method)  # noqa: S310  # `connect` has seen that it is https
        ask = partial(_ask, self._opener, request, seconds)
        answered: tuple[int, float, bytes] | None = None
        with trio.move_on_after(2 * seconds):  # each read has its own deadline: one byte at a time would go on for ever
            answered = await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._limiter)
        if answered is None:
            raise ManagerUnreachable("The manager's answer does not end; is the address right?")
        status, retry, content = answered
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise ManagerUnreachable("What answered is no Parley manager; is the address right?") from None
        if status < 300:
            return answer
        if not isinstance(answer, dict):
            answer = {}
        name, sentence = answer.get("name"), answer.get("title")
        raise ManagerRefused(
            clean_line(name)[:MAX_NAME] if isinstance(name, str) else f"http-{status}",
            clean_line(sentence)[:MAX_SENTENCE] if isinstance(sentence, str) else "The manager refused.",
            retry,
        )


class _NoRedirect(HTTPRedirectHandler):
    """A manager answers by itself; a key never follows a redirection to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(context: ssl.SSLContext) -> OpenerDirector:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return build_opener(ProxyHandler({}), HTTPSHandler(context=context), _NoRedirect())


@cache
def _webs_opener() -> OpenerDirector:
    """For certificates that browsers trust. Made when it is needed first: reading the system's authorities takes 40 ms."""
    return _opener(ssl.create_default_context())


def _open(opener: OpenerDirector, request: Request, seconds: float) -> Any:
    try:
        return opener.open(request, timeout=seconds)
    except URLError as error:
        if not (isinstance(error.reason, ssl.SSLCertVerificationError) and error.reason.verify_code in _ANOTHERS):
            raise  # one of the cluster's that is too old, or another host's, is told as that
    return _webs_opener().open(request, timeout=seconds)  # nothing of the request has been sent before


def _ask(opener: OpenerDirector, request: Request, seconds: float) -> tuple[int, float, bytes]:
    """Status, seconds of Retry-After, body. Raises ManagerUnreachable. For a thread."""
    try:
        try:
            answer = _open(opener, request, seconds)
        except HTTPError as refused:
            answer = refused
        with answer:
            retry = answer.headers.get("Retry-After", "")
            return answer.status, float(retry) if retry.isdecimal() else 1.0, answer.read(MAX_ANSWER)
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError, a host that no name server can be asked for a ValueError
        reason = getattr(error, "reason", error)
        detail = str(reason) or type(error).__name__
        raise ManagerUnreachable(f"{ManagerUnreachable.sentence} ({request.host}: {detail})") from None


def solve(challenge: str, bits: int) -> str:
    """A nonce for which SHA-256(challenge ‖ ":" ‖ nonce) begins with so many zero bits."""
    begun = sha256(f"{challenge}:".encode())
    for nonce in count():
        state = begun.copy()
        state.update(str(nonce).encode())
        if int.from_bytes(state.digest(), "big") >> (256 - bits) == 0:
            return str(nonce)
    raise AssertionError("numbers do not end")


def _scheduled(made: Any) -> Scheduled:
    """Raises KeyError, TypeError, ValueError, OverflowError for what no link can be made of; a link that is not this meeting's, or would
    upset a terminal, is none."""
    meeting, invite = int(made["meeting_id"]), str(made["invite"])
    if meeting not in MEETING_IDS or len(bytes.fromhex(invite)) != 8 or invite != bytes.fromhex(invite).hex():
        raise ValueError("no meeting")
    try:
        link = parse_invitation_untrusted(made["link"] if isinstance(made["link"], str) else "")
    except MalformedLink:
        raise ValueError("no link") from None
    if (link.meeting, link.invite) != (meeting, invite) or not is_site(link.site) or link.site != clean_line(link.site):
        raise ValueError("no link of this meeting")
    return Scheduled(MeetingId(meeting), invite, str(made["title"]), link.site)


def _read(reading: Callable[[], T]) -> T:
    try:
        return reading()
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ManagerUnreachable("The manager answered something else than was asked; are both of the same version?") from None
