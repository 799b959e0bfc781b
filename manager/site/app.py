"""Every address of the site, and who may go there."""

import math
from contextlib import suppress

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from manager import errors
from manager.callers import Stage
from manager.errors import Refusal
from manager.site import account, admin, join, meetings, sign_in
from manager.site.forms import FormTooLarge, FormUnreadable
from manager.site.visit import Site, View, Visit
from manager.site.web import Guard

log = structlog.get_logger()


class PageMissing(Refusal):
    name = "page-missing"
    sentence = "There is no such page; the address may be mistyped, or what it led to is gone."


class PageMethod(Refusal):
    name = "page-method"
    sentence = "This page cannot be asked in that way; go back, reload it and try again."


class FormForeign(Refusal):
    name = "form-foreign"
    sentence = "This form was not sent from a page of this site. Open the page anew and send it from there."


class SiteDefect(Refusal):
    name = "site-defect"
    sentence = "Something broke on our side; nothing that was confirmed is lost. Try again in a moment."


STATUS = {
    errors.RequestMalformed: 422,
    errors.NotPermitted: 403,
    errors.AddressNotAllowed: 403,
    errors.SignUpClosed: 403,
    errors.MeetingUnavailable: 404,
    errors.AccountUnknown: 404,
    errors.Throttled: 429,
    errors.SignInLocked: 429,
    errors.StoreUnavailable: 503,
    FormTooLarge: 413,
    FormUnreadable: 400,
    PageMissing: 404,
    PageMethod: 405,
    FormForeign: 403,
    SiteDefect: 500,
}
"""What a refusal that no form caught is as a status of HTTP; others are 409."""


def create_site(site: Site, api: ASGIApp) -> ASGIApp:
    """The pages, and the API beside them below `/api`, so that one address serves people and their programs."""
    done = Stage.COMPLETE

    def at(path: str, view: View, *stages: Stage, methods: str = "GET", **who: bool) -> Route:
        return Route(path, site.page(view, *stages, **who), methods=methods.split())

    both = "GET POST"
    routes = [  # tried one after the other: what people ask most stands first
        Route("/static/{name}", site.assets.serve, methods=["GET"]),
        at("/meetings", meetings.index, done),
        at("/meetings/new", meetings.new, done, methods=both),
        at("/meetings/{number:int}", meetings.show, done),
        at("/meetings/{number:int}/edit", meetings.edit, done, methods=both),
        at("/meetings/{number:int}/invite", meetings.invite, done, methods="POST"),
        at("/meetings/{number:int}/cancel", meetings.cancel, done, methods="POST"),
        at("/meetings/{number:int}/invitation.ics", meetings.calendar, done),
        at("/", join.home),
        at("/join", join.typed),
        at("/j/{number}", join.invitation),
        at("/j/{number}/{invite}", join.invitation),
        at("/language", sign_in.language, methods="POST"),
        at("/sign-in", sign_in.sign_in, methods=both),
        at("/sign-in/second", sign_in.second, Stage.FACTOR),
        at("/sign-in/code", sign_in.code, Stage.FACTOR, methods="POST"),
        at("/sign-in/passkey", sign_in.passkey, Stage.FACTOR, methods="POST"),
        at("/sign-in/passkey/options", sign_in.passkey_options, Stage.FACTOR, methods="POST"),
        at("/sign-out", sign_in.sign_out, methods="POST"),
        at("/sign-up", sign_in.sign_up, methods=both),
        at("/welcome", sign_in.welcome, methods=both),
        at("/confirm", sign_in.confirm, methods=both),
        at("/forgot", sign_in.forgot, methods=both),
        at("/reset", sign_in.reset, methods=both),
        at("/account", account.profile, done, methods=both),
        at("/account/email", account.email, done, methods="POST"),
        at("/account/prove", account.prove, done, methods=both),
        at("/account/prove/passkey", account.prove_by_passkey, done, methods="POST"),
        at("/account/prove/passkey/options", sign_in.passkey_options, done, methods="POST"),
        at("/account/password", account.fresh(account.password), done, Stage.PASSWORD, methods=both),
        at("/account/factors", account.fresh(account.factors), done, Stage.ENROL),
        at("/account/factors/app", account.begin_app, done, Stage.ENROL, methods="POST"),
        at("/account/factors/app/confirm", account.confirm_app, done, Stage.ENROL, methods="POST"),
        at("/account/factors/app/remove", account.remove_app, done, methods="POST"),
        at("/account/factors/passkeys", account.add_passkey, done, Stage.ENROL, methods="POST"),
        at("/account/factors/passkeys/options", account.passkey_options, done, Stage.ENROL, methods="POST"),
        at("/account/factors/passkeys/{number:int}/remove", account.remove_passkey, done, methods="POST"),
        at("/account/factors/codes", account.new_codes, done, methods="POST"),
        at("/account/sign-ins", account.sign_ins, done),
        at("/account/sign-ins/end-others", account.end_other_sign_ins, done, methods="POST"),
        at("/account/sign-ins/{number:int}/end", account.end_sign_in, done, methods="POST"),
        at("/account/keys", account.fresh(account.keys), done, methods=both),
        at("/account/keys/{number:int}/remove", account.remove_key, done, methods="POST"),
        at("/account/data", account.fresh(account.data), done),
        at("/account/data/export", account.export, done),
        at("/account/data/delete", account.delete, done, methods="POST"),
        at("/admin/users", admin.users, done, administers=True),
        at("/admin/users/{number:int}", admin.user, done, methods=both, administers=True),
        at("/admin/users/{number:int}/factors", admin.remove_factors, done, methods="POST", administers=True),
        at("/admin/users/{number:int}/sign-out", admin.sign_out_user, done, methods="POST", administers=True),
        at("/admin/users/{number:int}/delete", admin.delete_user, done, methods="POST", administers=True),
        at("/admin/invitations", admin.invitations, done, methods=both, administers=True),
        at("/admin/invitations/{number:int}/withdraw", admin.withdraw, done, methods="POST", administers=True),
        at("/admin/reports", admin.reports, done, administers=True),
        at("/admin/reports.csv", admin.reports_csv, done, administers=True),
        at("/admin/policy", admin.policy, done, methods=both, internal=True),
        at("/admin/audit", admin.audit, done, internal=True),
        at("/admin/nodes", admin.nodes, done, internal=True),
    ]

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return await _refused(site, request, error)

    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return await _refused(site, request, PageMethod() if error.status_code == 405 else PageMissing())

    async def hung_up(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    async def broken(request: Request, _: Exception) -> Response:
        return await _refused(site, request, SiteDefect())

    async def foreign(request: Request) -> Response:
        return await _refused(site, request, FormForeign())

    handlers = {Refusal: refused, HTTPException: not_routed, ClientDisconnect: hung_up, Exception: broken}
    pages = Starlette(routes=routes, exception_handlers=handlers)
    pages.router.redirect_slashes = False
    return _ApiBeside(api, Guard(_Logged(pages), https=site.https, refuse=foreign))


async def _refused(site: Site, request: Request, refusal: Refusal) -> Response:
    status = STATUS.get(type(refusal), 409)
    caller = None
    if status < 500:  # in the person's language, and not as if signed out
        with suppress(Refusal):
            caller = await site.caller(request)
    response = Visit(site, request, caller).refused(refusal, status)
    if refusal.retry_after is not None:
        response.headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after)))
    return response


class _ApiBeside:
    """What begins with `/api/` is the API's: keys instead of cookies, and JSON, so nothing of the pages' guard applies."""

    def __init__(self, api: ASGIApp, pages: ASGIApp) -> None:
        self._api = api
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_api = scope["type"] == "http" and scope["path"].startswith("/api/")
        await (self._api if is_api else self._pages)(scope, receive, send)


class _Logged:
    """A defect is logged, without the request. (Starlette has answered by then, and raises it again.)"""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("page-failed")
