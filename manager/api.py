"""The manager's HTTP API: JSON in, JSON out, problem+json (RFC 9457) for every refusal. Thin; the rules are elsewhere.

    GET  /api/v1/health
    POST /api/v1/meetings                   organizer   {title, meeting_key}        → {meeting_id, invite, title, …}
    GET  /api/v1/meetings                   organizer                               → {meetings: […]}
    POST /api/v1/meetings/{id}/open         organizer                               → ticket
    POST /api/v1/tickets[?wait=SECONDS]     anybody     {meeting_id, invite?}       → ticket
    POST /api/v1/sessions/{session}/end     organizer                               → {}
    POST /api/v1/sessions/{session}/revoke  organizer   {participant}               → {}

An organizer says `Authorization: Bearer KEY`. Bodies are JSON (`application/json`, 64 KiB at most); a field that is not listed is refused, so
nothing that looks like a password has a place here. Binary values are hex (8 and 32 bytes) or, for keys, base64url without padding.
"""

import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Final, TypeVar

import msgspec
import structlog
import trio
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from manager import errors
from manager.callers import Caller
from manager.desk import MAX_PATIENCE, Admission
from manager.errors import KeyRefused, Refusal, RequestMalformed
from manager.hidden import INVITE_SIZE, Hidden
from manager.house import House
from manager.meetings import KEY_SIZE, Meeting
from wire.ids import MEETING_IDS, MeetingId, ParticipantId, SessionId

MAX_BODY: Final = 64 * 1024
"""Bytes."""
BODY_WITHIN: Final = 10.0
"""Seconds for a whole body."""

STATUS: Final[dict[type[Refusal], int]] = {
    errors.RequestMalformed: 422,
    errors.MeetingKeyMissing: 409,
    errors.KeyRefused: 401,
    errors.MeetingUnavailable: 404,
    errors.NotOpenYet: 409,
    errors.MeetingEnded: 409,
    errors.SessionUnknown: 404,
    errors.SessionFull: 409,
    errors.ParticipantUnknown: 404,
    errors.Throttled: 429,
    errors.NoRelay: 503,
    errors.StoreUnavailable: 503,
}

log = structlog.get_logger()
T = TypeVar("T")


class _BodyTooLarge(Refusal):
    name = "request-too-large"
    sentence = f"A request has at most {MAX_BODY} bytes."


class _BodyTooSlow(Refusal):
    name = "request-timeout"
    sentence = f"A request is complete within {BODY_WITHIN:.0f} seconds."


class _NotJson(Refusal):
    name = "media-type-unsupported"
    sentence = "A request's body is JSON; say Content-Type: application/json."


class _NotFound(Refusal):
    name = "not-found"
    sentence = "There is nothing at this address."


class _MethodNotAllowed(Refusal):
    name = "method-not-allowed"
    sentence = "This address does not take that method."


class _Defect(Refusal):
    name = "internal-error"
    sentence = "A defect in the manager; its log says more."


_STATUS: Final = STATUS | {_BodyTooLarge: 413, _BodyTooSlow: 408, _NotJson: 415, _NotFound: 404, _MethodNotAllowed: 405, _Defect: 500}


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    """What a request may say."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Nothing(_Body, frozen=True, forbid_unknown_fields=True):
    pass


class Schedule(_Body, frozen=True, forbid_unknown_fields=True):
    title: str
    meeting_key: str


class AskTicket(_Body, frozen=True, forbid_unknown_fields=True):
    meeting_id: Annotated[int, Meta(ge=MEETING_IDS.start, lt=MEETING_IDS.stop)]
    invite: str | None = None


class Revoke(_Body, frozen=True, forbid_unknown_fields=True):
    participant: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]


def create_app(house: House) -> ASGIApp:
    """The API as an ASGI application."""

    desk = house.desk

    async def health(request: Request) -> Response:
        await desk.healthy()
        return _json({"status": "ok"})

    async def schedule(request: Request) -> Response:
        caller = await _caller(house, request)
        body = await _body_untrusted(request, Schedule)
        return _json(_meeting(await house.diary.schedule(caller, body.title, meeting_key=_meeting_key_untrusted(body.meeting_key))), 201)

    async def list_meetings(request: Request) -> Response:
        caller = await _caller(house, request)
        return _json({"meetings": [_meeting(meeting) for meeting in await house.diary.meetings(caller)]})

    async def open_meeting(request: Request) -> Response:
        caller = await _caller(house, request)
        await _body_untrusted(request, Nothing)
        return _json(_ticket(await desk.open(caller, _meeting_id_untrusted(request.path_params["meeting"]))))

    async def ticket(request: Request) -> Response:
        patience = _patience_untrusted(request)
        body = await _body_untrusted(request, AskTicket)
        invite = None if body.invite is None else _invite_untrusted(body.invite)
        address = request.client.host if request.client else ""
        asking = desk.ticket(MeetingId(body.meeting_id), invite, address, patience)
        return _json(_ticket(await _while_connected(request, asking)))

    async def end(request: Request) -> Response:
        caller = await _caller(house, request)
        await _body_untrusted(request, Nothing)
        await desk.end(caller, _session_untrusted(request.path_params["session"]))
        return _json({})

    async def revoke(request: Request) -> Response:
        caller = await _caller(house, request)
        session = _session_untrusted(request.path_params["session"])
        body = await _body_untrusted(request, Revoke)
        await desk.revoke(caller, session, ParticipantId(body.participant))
        return _json({})

    app = Starlette(
        routes=[
            Route("/api/v1/health", health, methods=["GET"]),
            Route("/api/v1/meetings", schedule, methods=["POST"]),
            Route("/api/v1/meetings", list_meetings, methods=["GET"]),
            Route("/api/v1/meetings/{meeting}/open", open_meeting, methods=["POST"]),
            Route("/api/v1/tickets", ticket, methods=["POST"]),
            Route("/api/v1/sessions/{session}/end", end, methods=["POST"]),
            Route("/api/v1/sessions/{session}/revoke", revoke, methods=["POST"]),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _not_routed, ClientDisconnect: _hung_up, Exception: _broken},
    )
    app.router.redirect_slashes = False
    return _Outermost(app)


class _Outermost:
    """A defect is logged, without the request. (Starlette has answered `internal-error` by then, and raises it again.)"""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("request-failed")


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, {"cache-control": "no-store"}, "application/json")


def _problem(refusal: Refusal) -> Response:
    status = _STATUS.get(type(refusal), 500)
    content: dict[str, object] = {
        "type": f"urn:parley:problem:{refusal.name}",
        "title": refusal.sentence,
        "status": status,
        "name": refusal.name,
    }
    if refusal.detail and not isinstance(refusal, errors.StoreUnavailable):
        content["detail"] = refusal.detail
    headers = {"cache-control": "no-store"}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after)))
    if isinstance(refusal, KeyRefused):
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(content), status, headers, "application/problem+json")


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return _problem(refusal)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _problem(_MethodNotAllowed() if error.status_code == 405 else _NotFound())
    if error.headers and "Allow" in error.headers:
        response.headers["allow"] = error.headers["Allow"]
    return response


async def _hung_up(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _broken(request: Request, error: Exception) -> Response:
    return _problem(_Defect())


async def _caller(house: House, request: Request) -> Caller:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise KeyRefused
    return await house.entrance.caller_of_key(key.strip(), request.client.host if request.client else "")


async def _body_untrusted(request: Request, kind: type[T]) -> T:
    """The body as its type. Raises `RequestMalformed`, and by name what is too large, too slow or no JSON. Never quotes a value."""
    body = bytearray()
    with trio.move_on_after(BODY_WITHIN) as within:
        async with aclosing(request.stream()) as parts:
            async for part in parts:
                body += part
                if len(body) > MAX_BODY:
                    raise _BodyTooLarge
    if within.cancelled_caught:
        raise _BodyTooSlow
    if not body and issubclass(kind, Nothing):
        return kind()
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _NotJson
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise RequestMalformed(str(error)[:200]) from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise RequestMalformed("the body is not JSON in UTF-8") from None


async def _while_connected(request: Request, asking: Awaitable[T]) -> T:
    """Wait for an answer only as long as somebody waits for it. Raises `ClientDisconnect`."""
    answers: list[T] = []
    refusals: list[Refusal] = []
    async with trio.open_nursery() as nursery:

        async def hang_up() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(hang_up)
        try:
            answers.append(await asking)
        except Refusal as refusal:
            refusals.append(refusal)  # a nursery would wrap it into a group
        nursery.cancel_scope.cancel()
    if refusals:
        raise refusals[0]
    if not answers:
        raise ClientDisconnect
    return answers[0]


def _number_untrusted(text: str, pattern: str, what: str, convert: Callable[[str], T]) -> T:
    if re.fullmatch(pattern, text, re.ASCII) is None:
        raise RequestMalformed(what)
    return convert(text)


def _meeting_id_untrusted(text: str) -> MeetingId:
    return _number_untrusted(text, "[1-9][0-9]{8}", "a meeting ID has nine digits, the first one not 0", lambda t: MeetingId(int(t)))


def _session_untrusted(text: str) -> SessionId:
    return _number_untrusted(text, "[0-9a-f]{16}", "a session ID has 16 hex digits, in lower case", lambda t: SessionId(int(t, 16)))


def _invite_untrusted(text: str) -> Hidden:
    size = 2 * INVITE_SIZE
    return _number_untrusted(
        text, f"[0-9a-f]{{{size}}}", f"an invitation has {size} hex digits, in lower case", lambda t: Hidden(bytes.fromhex(t))
    )


def _meeting_key_untrusted(text: str) -> bytes:
    what = f"a meeting key is {KEY_SIZE} bytes in base64url without padding, 43 characters"
    key = _number_untrusted(text, "[A-Za-z0-9_-]{43}", what, lambda t: urlsafe_b64decode(t + "="))
    if _base64url(key) != text:
        raise RequestMalformed(what)  # stray bits in the last character
    return key


def _patience_untrusted(request: Request) -> float:
    waits = request.query_params.getlist("wait")
    if not waits:
        return 0.0
    what = f"wait is a number of seconds from 0 to {MAX_PATIENCE:.0f}"
    seconds = _number_untrusted(waits[-1], r"[0-9]{1,2}(\.[0-9]{1,3})?", what, float)
    if len(waits) > 1 or seconds > MAX_PATIENCE:
        raise RequestMalformed(what)
    return seconds


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _meeting(meeting: Meeting) -> dict[str, object]:
    return {
        "meeting_id": meeting.number,
        "invite": meeting.invite.reveal().hex(),
        "title": meeting.title,
        "meeting_key": None if meeting.meeting_key is None else _base64url(meeting.meeting_key),
        "state": meeting.state.value,
        "session": None if meeting.session is None else f"{meeting.session:016x}",
        "created_at": meeting.created_at,
    }


def _ticket(admission: Admission) -> dict[str, object]:
    ticket = admission.ticket
    return {
        "session": f"{ticket.session:016x}",
        "participant": ticket.participant,
        "role": ticket.role.value,
        "token": ticket.token.reveal().hex(),
        "secret": ticket.secret.reveal().hex(),
        "meeting_id": ticket.meeting,
        "title": ticket.title,
        "meeting_key": _base64url(ticket.meeting_key),
        "relays": [{"node": info.node, "addresses": [list(address) for address in info.addresses]} for info in admission.relays],
        "cluster": admission.cluster,
        "features": sorted(ticket.features),
    }
