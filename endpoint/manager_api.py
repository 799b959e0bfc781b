"""The endpoint's calls of the manager's API. What the manager refuses keeps its own name and sentence."""

import base64
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import httpx
import trio

from endpoint.errors import ManagerRefused, ManagerUnreachable
from endpoint.ticket import Ticket
from wire.ids import MeetingId, SessionId

T = TypeVar("T")

CALL_WITHIN: Final = 15.0
"""Seconds for an ordinary call."""
LONG_POLL: Final = 20
"""Seconds that the manager is asked to wait for a meeting to open."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    meeting: MeetingId
    invite: str = field(repr=False)
    title: str


class ManagerApi:
    """Made by `connect`. `key`: an organizer's API key; guests need none."""

    def __init__(self, client: httpx.AsyncClient, key: str | None) -> None:
        self._client = client
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    @classmethod
    @asynccontextmanager
    async def connect(cls, site: str, ca: str | os.PathLike[str] | None, key: str | None = None) -> AsyncIterator["ManagerApi"]:
        """`site`: https://HOST[:PORT]; `ca`: the authority that its certificate must come from (None: the system's)."""
        context = ssl.create_default_context(cafile=None if ca is None else os.fspath(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        async with httpx.AsyncClient(base_url=site, verify=context, timeout=CALL_WITHIN, trust_env=ca is None) as client:
            yield cls(client, key)

    async def schedule(self, title: str, meeting_key: bytes) -> Scheduled:
        key = base64.urlsafe_b64encode(meeting_key).rstrip(b"=").decode()
        made = await self._post("/api/v1/meetings", {"title": title, "meeting_key": key})
        return _read(lambda: Scheduled(MeetingId(int(made["meeting_id"])), str(made["invite"]), str(made["title"])))

    async def open(self, meeting: MeetingId) -> Ticket:
        """The organizer's ticket; opens the session, or comes back into it."""
        made = await self._post(f"/api/v1/meetings/{meeting}/open", {})
        return _read(lambda: Ticket.from_json_untrusted(made))

    async def ticket(self, meeting: MeetingId, invite: str | None, *, patience: float = 0.0) -> Ticket:
        """A guest's ticket. With an invitation it waits up to `patience` seconds for the organizer to open."""
        give_up = trio.current_time() + patience
        body: dict[str, object] = {"meeting_id": int(meeting)} | ({"invite": invite} if invite else {})
        while True:
            left = give_up - trio.current_time()
            wait = max(0, min(LONG_POLL, int(left)))
            try:
                made = await self._post(f"/api/v1/tickets?wait={wait}" if wait else "/api/v1/tickets", body, CALL_WITHIN + wait)
                return _read(lambda made=made: Ticket.from_json_untrusted(made))  # type: ignore[misc]
            except ManagerRefused as refused:
                if refused.name not in ("not-open-yet", "throttled") or left <= 0:
                    raise
                await trio.sleep(min(max(0.2, refused.retry_after or 1.0), max(0.0, left)))

    async def end(self, session: SessionId) -> None:
        await self._post(f"/api/v1/sessions/{session:016x}/end", {})

    async def running_session(self, meeting: MeetingId) -> SessionId | None:
        """The session that one of this organizer's meetings runs now; None if it runs none, or there is no such meeting."""
        listed = await self._call("GET", "/api/v1/meetings")
        sessions = _read(lambda: {int(made["meeting_id"]): made["session"] for made in listed["meetings"]})
        found = sessions.get(meeting)
        return None if found is None else _read(lambda: SessionId(int(found, 16)))

    async def _post(self, path: str, body: dict[str, object], seconds: float = CALL_WITHIN) -> Any:
        return await self._call("POST", path, seconds, body)

    async def _call(self, method: str, path: str, seconds: float = CALL_WITHIN, body: dict[str, object] | None = None) -> Any:
        try:
            answer = await self._client.request(method, path, json=body, headers=self._headers, timeout=seconds)
        except httpx.HTTPError as error:
            detail = str(error) or type(error).__name__
            raise ManagerUnreachable(f"{ManagerUnreachable.sentence} ({self._client.base_url}: {detail})") from None
        try:
            content = answer.json()
        except ValueError:
            raise ManagerUnreachable("What answered is no Parley manager; is the address right?") from None
        if answer.is_success:
            return content
        try:
            retry = float(answer.headers.get("retry-after", ""))
        except ValueError:
            retry = 1.0
        name, title = str(content.get("name", f"http-{answer.status_code}")), str(content.get("title", "The manager refused."))
        raise ManagerRefused(name, title, retry)


def _read(reading: Callable[[], T]) -> T:
    try:
        return reading()
    except (KeyError, TypeError, ValueError):
        raise ManagerUnreachable("The manager answered something else than was asked; are both of the same version?") from None
