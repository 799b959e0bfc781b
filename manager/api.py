"""The manager's HTTP API: JSON in, JSON out, problem+json (RFC 9457) for every refusal. Thin; the rules are elsewhere.

What can be called is the table of `manager.operations`. Here is what all calls share, in this order: who calls (`Authorization: Bearer`, an API
key or a sign-in's token), how often, the words of path and query, the body (JSON, 64 KiB at most, no unknown field), the idempotency key, the
call, the answer. Nothing of a request is logged or quoted.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from hashlib import sha256
from re import fullmatch
from typing import Final, TypeVar

import msgspec
import structlog
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from manager import errors, idempotency, openapi
from manager.api_types import Nothing, Problem
from manager.callers import Caller
from manager.errors import KeyRefused, Refusal, RequestMalformed, SignInNeeded, StepMissing, Throttled
from manager.house import House
from manager.operations import OPERATIONS, Call, Operation, Text, word_untrusted
from manager.throttle import Rate, Throttle

MAX_BODY: Final = 64 * 1024
"""Bytes."""
BODY_WITHIN: Final = 10.0
"""Seconds for a whole body."""
SESSION: Final = "session_"
"""Before a sign-in's token, as `parley_` is before a key."""

STATUS: Final[dict[type[Refusal], int]] = {
    errors.RequestMalformed: 422,
    errors.KeyRefused: 401,
    errors.ScopeMissing: 403,
    errors.NotPermitted: 403,
    errors.SignInRefused: 401,
    errors.SignInLocked: 429,
    errors.SignInNeeded: 401,
    errors.StepMissing: 403,
    errors.ProofNeeded: 403,
    errors.AddressNotAllowed: 403,
    errors.SignUpClosed: 403,
    errors.LinkWorthless: 410,
    errors.ChallengeFailed: 422,
    errors.AccountExists: 409,
    errors.AccountUnknown: 404,
    errors.LastAdministrator: 409,
    errors.MeetingUnavailable: 404,
    errors.NotOpenYet: 409,
    errors.MeetingEnded: 409,
    errors.MeetingRunning: 409,
    errors.MeetingKeyMissing: 409,
    errors.SessionUnknown: 404,
    errors.SessionFull: 409,
    errors.ParticipantUnknown: 404,
    errors.IdempotencyConflict: 409,
    errors.Throttled: 429,
    errors.NoRelay: 503,
    errors.MailFailed: 503,
    errors.AuditBroken: 500,
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


def create_app(house: House) -> ASGIApp:
    """The API as an ASGI application."""
    limits = house.settings
    calls = Throttle(Rate(limits.call_rate, limits.call_burst), Rate(limits.calls_rate, limits.calls_burst))
    described = msgspec.json.encode(openapi.document())

    async def describe(request: Request) -> Response:
        return Response(described, 200, {"cache-control": "no-cache"}, "application/json")

    routes = [Route("/api/v1/openapi.json", describe, methods=["GET"])]
    for path in dict.fromkeys(operation.path for operation in OPERATIONS):
        here = {operation.method: operation for operation in OPERATIONS if operation.path == path}
        routes.append(Route(path, _endpoint(house, calls, here), methods=list(here)))
    app = Starlette(
        routes=routes, exception_handlers={Refusal: _refused, HTTPException: _not_routed, ClientDisconnect: _hung_up, Exception: _broken}
    )
    app.router.redirect_slashes = False
    return _Outermost(app)


def _endpoint(house: House, calls: Throttle, here: dict[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        operation = here.get(request.method) or here["GET"]  # HEAD
        address = request.client.host if request.client else ""
        caller = await _caller(house, request, address) if operation.scope is not None or operation.people else None
        if caller is not None:
            _charge(calls, caller)
        if operation.scope is not None and caller is not None:
            caller.require(operation.scope)
        if operation.people and caller is not None and caller.login is None:
            raise SignInNeeded
        words = _words_untrusted(operation, request)
        body, raw = await _body_untrusted(request, operation.takes)
        call = Call(house, house.clock(), address, request.headers.get("user-agent", ""), words, body, caller)
        if operation.replays and caller is not None and openapi.IDEMPOTENCY in request.headers:
            return await _once(house, operation, call, caller, request, raw)
        asking = operation.act(call)
        return _answer(operation, await (_while_connected(request, asking) if "wait" in words else asking))

    return endpoint


async def _once(house: House, operation: Operation, call: Call, caller: Caller, request: Request, raw: bytes) -> Response:
    """Do it, or say again what was answered when it was done. Only what was done is kept."""
    key = request.headers[openapi.IDEMPOTENCY]
    if fullmatch(openapi.IDEMPOTENCY_PATTERN, key) is None:
        raise RequestMalformed("an idempotency key has 1 to 64 printable ASCII characters", fields={openapi.IDEMPOTENCY: "malformed"})
    asked = sha256(f"{request.method} {request.scope['path']}\n".encode() + raw).digest()
    known = await house.store.write(idempotency.take, caller.account.id, key, asked, call.now)
    if known is not None:
        return Response(known.content, known.status, {"cache-control": "no-store", "idempotent-replayed": "true"}, "application/json")
    try:
        answer = _answer(operation, await operation.act(call))
    except Refusal:
        await house.store.write(idempotency.give_up, caller.account.id, key)
        raise
    await house.store.write(idempotency.keep, caller.account.id, key, idempotency.Answer(answer.status_code, bytes(answer.body)))
    return answer


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


def _answer(operation: Operation, given: object) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if isinstance(given, Text):
        headers["content-disposition"] = f'attachment; filename="{given.filename}"'
        return Response(given.content, operation.status, headers, given.media_type)
    return Response(msgspec.json.encode(given), operation.status, headers, "application/json")


def _problem(refusal: Refusal) -> Response:
    status = _STATUS.get(type(refusal), 500)
    shown = refusal.detail and not isinstance(refusal, errors.StoreUnavailable)
    problem = Problem(
        type=f"urn:parley:problem:{refusal.name}",
        title=refusal.sentence,
        status=status,
        name=refusal.name,
        detail=refusal.detail if shown else "",
        fields=refusal.fields if isinstance(refusal, RequestMalformed) else {},
        stage=refusal.stage if isinstance(refusal, StepMissing) else "",
    )
    headers = {"cache-control": "no-store"}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(problem), status, headers, openapi.PROBLEM)


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


async def _caller(house: House, request: Request, address: str) -> Caller:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise KeyRefused
    key = key.strip()
    if key.startswith(SESSION):
        return await house.entrance.caller_of_cookie(key.removeprefix(SESSION), address)
    return await house.entrance.caller_of_key(key, address)


def _charge(calls: Throttle, caller: Caller) -> None:
    """Per account: many keys are no more than one."""
    wait = calls.take(f"account {caller.account.id}", trio.current_time())
    if wait > 0:
        raise Throttled(retry_after=wait)


def _words_untrusted(operation: Operation, request: Request) -> dict[str, str]:
    """The words of path and query by name. Raises `RequestMalformed`, also for one that is not asked for or comes twice."""
    words = {name: word_untrusted(name, str(text)) for name, text in request.path_params.items()}
    for name in request.query_params:
        if name not in operation.query:
            raise RequestMalformed(f"the query has {', '.join(operation.query) or 'nothing'}")
        texts = request.query_params.getlist(name)
        words[name] = word_untrusted(name, texts[0] if len(texts) == 1 else "\0")
    return words


async def _body_untrusted(request: Request, kind: type[T]) -> tuple[T, bytes]:
    """The body as its type, and as it came. Raises `RequestMalformed`, and by name what is too large, too slow or no JSON. Quotes no value."""
    body = bytearray()
    with trio.move_on_after(BODY_WITHIN) as within:
        async with aclosing(request.stream()) as parts:
            async for part in parts:
                body += part
                if len(body) > MAX_BODY:
                    raise _BodyTooLarge
    if within.cancelled_caught:
        raise _BodyTooSlow
    if not body and kind is Nothing:
        return kind(), b""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _NotJson
    try:
        return msgspec.json.decode(body, type=kind), bytes(body)
    except msgspec.ValidationError as error:
        problem, _, path = str(error)[:200].partition(" - at `$.")
        field = path.partition("`")[0].partition("[")[0].partition(".")[0]
        raise RequestMalformed(str(error)[:200], fields={field: problem} if field else None) from None
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
