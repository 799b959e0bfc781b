"""One request of a page: who asks, in which language, and how to answer.

`Site` is what all requests share. A view is `async def view(visit: Visit) -> Response`; `Site.page` makes an endpoint of it and sees to it that
only who may gets there: strangers are sent to sign in and come back, a sign-in by half is sent to its next step. A form whose sign-in has
ended meanwhile, or that needs a recent proof, is kept in the page that says so, and nowhere else: it is sent again from there, and judged as
any other.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from manager.callers import Caller, Stage
from manager.errors import NotPermitted, ProofNeeded, Refusal, RequestMalformed, SignInNeeded
from manager.house import House
from manager.site.assets import Assets
from manager.site.forms import Form, read_form_untrusted
from manager.site.languages import Language
from manager.site.pages import Page, Pages, redirect
from manager.site.web import LANGUAGE, SESSION, Cookies, address_of, language_of

View = Callable[["Visit"], Awaitable[Response]]
MAX_NUMBER: Final = 2**31 - 1
NOTICE: Final = "parley-notice"
"""A cookie with the name of what was just done, to be said on the next page."""
STEPS: Final = {Stage.FACTOR: "/sign-in/second", Stage.ENROL: "/account/factors", Stage.PASSWORD: "/account/password"}
"""Where a sign-in by half goes on."""


def N_(text: str) -> str:  # noqa: N802  # gettext's own name for: this is translated where it is shown
    return text


DONE: Final = {
    "saved": N_("Saved."),
    "scheduled": N_("The meeting is scheduled. Invite people with its link."),
    "cancelled": N_("The meeting is cancelled."),
    "invited": N_("The invitation is on its way."),
    "withdrawn": N_("The invitation is withdrawn."),
    "mailed": N_("The invitations are on their way."),
    "password": N_("Your password is changed; your other sign-ins have ended."),
    "password-and-keys": N_("Your password is changed; your other sign-ins have ended, and your API keys are removed."),
    "email": N_("A letter is on its way to the new address."),
    "removed": N_("Removed."),
    "ended": N_("Ended."),
    "deleted": N_("The account is deleted."),
}
"""What a page says after a form has done its work."""


class Site:
    """What all requests share. `clock`: seconds since 1970."""

    def __init__(self, house: House, clock: Callable[[], float]) -> None:
        parts = urlsplit(house.site)
        self.entrance: Final = house.entrance
        self.own: Final = house.own
        self.diary: Final = house.diary
        self.administration: Final = house.administration
        self.clock: Final = clock
        self.https: Final = parts.scheme == "https"
        self.cookies: Final = Cookies(https=self.https)
        self.assets: Final = Assets()
        self.pages: Final = Pages(self.assets)

    def page(self, view: View, *stages: Stage, administers: bool = False, internal: bool = False) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint. `stages`: of whose sign-ins; none: anybody may come. Administrators' pages are there for nobody else."""

        async def endpoint(request: Request) -> Response:
            visit = Visit(self, request, await self.caller(request))
            caller = visit.caller
            if stages:
                login = None if caller is None else caller.login
                if login is None or login.stage not in stages:
                    kept = (await visit.read_form()).kept if visit.posted and Stage.COMPLETE in stages else []
                    if kept:
                        return visit.render("ended.html", 403, kept=kept, proves=False)
                    if login is None:
                        return redirect(f"/sign-in?next={quote(request.scope['path'])}" if request.method == "GET" else "/sign-in")
                    return redirect(STEPS.get(login.stage, "/meetings"))
                role = visit.who.account.role
                if (administers and not role.administers) or (internal and role != "internal-admin"):
                    raise NotPermitted
            try:
                return await view(visit)
            except ProofNeeded:
                if kept := visit.form.kept:
                    visit.form = Form()
                    return visit.render("ended.html", 403, kept=kept, proves=True)
                page = "/".join(request.scope["path"].split("/")[:3])  # that the form stood on
                return redirect(f"/account/prove?next={quote(page)}")

        return endpoint

    async def caller(self, request: Request) -> Caller | None:
        """Who is signed in, also by half. Raises `AddressNotAllowed`."""
        cookie = self.cookies.get(request, SESSION)
        if cookie is None:
            return None
        try:
            return await self.entrance.caller_of_cookie(cookie, address_of(request))
        except SignInNeeded:
            return None


class Visit:
    """One request. `caller`: who is signed in, also by half; None: nobody."""

    def __init__(self, site: Site, request: Request, caller: Caller | None = None) -> None:
        self.site = site
        self.request = request
        self.caller = caller
        wished = site.cookies.get(request, LANGUAGE) or (None if caller is None else caller.account.language)
        self.language: Final[Language] = language_of(request, wished)
        self.form = Form()

    @property
    def who(self) -> Caller:
        """The caller of a page that needs one."""
        assert self.caller is not None
        return self.caller

    @property
    def address(self) -> str:
        return address_of(self.request)

    @property
    def agent(self) -> str:
        return self.request.headers.get("user-agent", "")

    @property
    def posted(self) -> bool:
        return self.request.method == "POST"

    def say(self, text: str) -> str:
        return self.language.say(text)

    def number(self, name: str = "number") -> int:
        """A number in the path; the routes let only digits through. Raises `HTTPException` for one that no table holds."""
        number = int(self.request.path_params[name])
        if number > MAX_NUMBER:
            raise HTTPException(404)
        return number

    @property
    def noticed(self) -> str:
        """What was just done, a name of `DONE`; "" on every later page."""
        return self.site.cookies.get(self.request, NOTICE) or ""

    async def read_form(self) -> Form:
        self.form = await read_form_untrusted(self.request)
        return self.form

    def render(self, template: str, status: int | None = None, **words: Any) -> Response:
        """A page; with a form that something is wrong with, it is 422, or 429 if waiting helps."""
        done = self.noticed
        account = None if self.caller is None else self.caller.account
        page = Page(
            path=self.request.scope["path"],
            language=self.language,
            who=account if self.caller is not None and self.caller.login is not None and self.caller.login.stage is not Stage.FACTOR else None,
            zone=ZoneInfo("UTC" if account is None else account.zone),
            now=self.site.clock(),
            notice=self.say(DONE[done]) if done in DONE else "",
        )
        if status is None:
            status = 200 if not self.form.errors else 422 if self.form.retry_after is None else 429
        response = self.site.pages.render(page, template, status, **({"form": self.form} | words))
        if done:
            self.site.cookies.clear(response, NOTICE)
        return response

    def done(self, path: str, what: str = "") -> Response:
        """Go on there; the page says `what` of `DONE`."""
        response = redirect(path)
        if what:
            assert what in DONE
            self.site.cookies.set(response, NOTICE, what, seconds=60)
        return response

    def sign_in(self, response: Response, cookie: str) -> Response:
        """With fresh bits in the cookie, which ends with the browser; how long it counts is the policy's."""
        self.site.cookies.set(response, SESSION, cookie)
        return response

    def refused(self, refusal: Refusal, status: int) -> Response:
        sentence = self.say(refusal.sentence)
        return self.render("error.html", status, title=self.say(TITLES.get(status, N_("This did not work"))), sentence=sentence)


TITLES: Final = {
    403: N_("Not for you"),
    404: N_("Nothing here"),
    405: N_("Not this way"),
    413: N_("Too much"),
    429: N_("Too often"),
    500: N_("Our mistake"),
    503: N_("Not now"),
}


def bad(field: str, problem: str) -> RequestMalformed:
    """Something is wrong with one field."""
    return RequestMalformed(fields={field: problem})
