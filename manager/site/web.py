"""What holds for every page: headers, where forms may come from, who asks, in which language.

A form counts only if it comes from a page of this site. Every browser says so with each POST (`Origin`, RFC 6454, and `Sec-Fetch-Site`);
what does not say it is refused, so there is no token to keep, to leak or to expire while somebody types. Cookies are `SameSite=Lax`
besides, and under HTTPS their names begin with `__Host-`, so that no other host can set them.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manager.site.languages import Language, choose

SESSION: Final = "parley"
LANGUAGE: Final = "parley-language"
YEAR: Final = 365 * 86_400

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""Nothing inline, nothing foreign; scripts cannot make markup out of text either."""
_HEADERS: Final[dict[str, str]] = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # no-referrer would hide the Origin of our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), interest-cohort=(), publickey-credentials-get=(self)",
}
_NOT_KEPT: Final = [(b"cache-control", b"no-store")]
_HTTPS_ALONE: Final = "max-age=31536000"


class Guard:
    """Around the whole site: sets the headers of every answer and refuses forms of other sites. `refuse` answers those."""

    def __init__(self, app: ASGIApp, *, https: bool, refuse: Callable[[Request], Awaitable[Response]]) -> None:
        self._app = app
        self._https = https
        self._refuse = refuse
        every = _HEADERS | ({"strict-transport-security": _HTTPS_ALONE} if https else {})
        self._headers = [(name.encode(), value.encode()) for name, value in every.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                kept = any(name == b"cache-control" for name, _ in headers)
                message["headers"] = [*headers, *self._headers, *([] if kept else _NOT_KEPT)]
            await send(message)

        if scope["method"] not in ("GET", "HEAD") and not from_here(Headers(scope=scope), https=self._https):
            answer = await self._refuse(Request(scope, receive))
            await answer(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


def from_here(headers: Headers, *, https: bool) -> bool:
    """Whether a page of this very site sent the request. Who says nothing of where it comes from is no browser with our page open."""
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = headers.get("origin")
    if origin is None:
        return site == "same-origin"
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == ("https" if https else "http") and parts.netloc == headers.get("host", "")


def language_of(request: Request, chosen: str | None) -> Language:
    """By choice, or by what the browser accepts."""
    return choose(chosen, request.headers.get("accept-language", ""))


class Cookies:
    """How this site's cookies are named and set."""

    def __init__(self, *, https: bool) -> None:
        self._https = https

    def name(self, plain: str) -> str:
        return f"__Host-{plain}" if self._https else plain

    def get(self, request: Request, plain: str) -> str | None:
        return request.cookies.get(self.name(plain))

    def set(self, response: Response, plain: str, value: str, *, seconds: int | None = None) -> None:
        """Until the browser is closed, or for so many seconds."""
        options: dict[str, Any] = {"path": "/", "secure": self._https, "httponly": True, "samesite": "lax"}
        response.set_cookie(self.name(plain), value, max_age=seconds, **options)

    def clear(self, response: Response, plain: str) -> None:
        response.delete_cookie(self.name(plain), path="/", secure=self._https, httponly=True, samesite="lax")


def address_of(request: Request) -> str:
    """Who calls, for throttles and the audit log."""
    return request.client.host if request.client else ""


def inner_path_untrusted(text: str) -> str:
    """Where to go after signing in: a path of this site, or "/"."""
    if not text.startswith("/") or text.startswith(("//", "/\\")) or len(text) > 500:
        return "/"
    return text if all("!" <= c <= "~" for c in text) and "\\" not in text else "/"
