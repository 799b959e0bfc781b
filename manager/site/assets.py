"""Files that never change: scripts, styles, pictures. Served under names that hold their hash, so browsers may keep them for ever.

A script imports `"./other.js"` and a style names `url("picture.svg")`; both are rewritten to the hashed names when the manager starts, so
there is no build step and a new version is never mixed with an old one. Everything is held in memory, packed once.
"""

import gzip
import re
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_NAMED: Final = re.compile(r'"(?:\./)?([\w-]+\.(?:js|svg|txt))"')
_FOR_EVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, plain and packed."""

    name: str
    kind: str
    body: bytes
    packed: bytes


class Assets:
    """All files below `static/`, and the word list of generated passwords as `words.txt`."""

    def __init__(self) -> None:
        self._sources = {path.name: path.read_text("utf-8") for path in sorted(STATIC.iterdir())}
        self._sources["words.txt"] = resources.files("mnemonic").joinpath("wordlist/english.txt").read_text("utf-8")
        self._hashed: dict[str, str] = {}
        self._served: dict[str, Asset] = {}
        for name in self._sources:
            self._add(name)

    def address(self, name: str) -> str:
        """Where a file is served, for templates: `address("site.css")` is `/static/site.0123456789ab.css`."""
        return f"/static/{self._hashed[name]}"

    async def serve(self, request: Request) -> Response:
        """`GET /static/{name}`."""
        asset = self._served.get(request.path_params["name"])
        if asset is None:
            return Response("There is nothing at this address.", 404, media_type="text/plain")
        headers = {"cache-control": _FOR_EVER, "vary": "accept-encoding"}
        body = asset.body
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"], body = "gzip", asset.packed
        return Response(body, headers=headers, media_type=asset.kind)

    def _add(self, name: str, asked_by: tuple[str, ...] = ()) -> str:
        """The hashed name. What a file names is added before it, so that its hash changes with theirs."""
        if name in self._hashed:
            return self._hashed[name]
        if name in asked_by:
            raise ValueError(f"{name} and {asked_by[-1]} name each other")

        def hashed(match: re.Match[str]) -> str:
            other = match[1]
            return f'"./{self._add(other, (*asked_by, name))}"' if other in self._sources and other != name else match[0]

        text = self._sources[name]
        body = (_NAMED.sub(hashed, text) if name.endswith((".js", ".css")) else text).encode()
        stem, suffix = name.rsplit(".", 1)
        served = f"{stem}.{sha256(body).hexdigest()[:12]}.{suffix}"
        self._hashed[name] = served
        self._served[served] = Asset(served, _TYPES[f".{suffix}"], body, gzip.compress(body, 9, mtime=0))
        return served
