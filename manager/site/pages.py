"""Templates to pages, in the reader's language. Compiled once; a page costs a fraction of a millisecond.

Every template gets `page`: what holds for all of them, among it who is signed in and where.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from manager.accounts import Account, AccountRole
from manager.site.assets import Assets
from manager.site.languages import LANGUAGES, Language, languages, zone_options
from wire.ids import MeetingId, format_meeting_id

TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Page:
    """What every template may ask. `who`: the account that is signed in, or None. `zone`: where its times are told."""

    path: str
    language: Language
    who: Account | None
    zone: ZoneInfo
    now: float
    notice: str = ""

    @property
    def administers(self) -> bool:
        return self.who is not None and self.who.role.administers

    @property
    def internal(self) -> bool:
        return self.who is not None and self.who.role is AccountRole.INTERNAL_ADMIN

    @property
    def languages(self) -> dict[str, str]:
        return LANGUAGES

    def zones(self, chosen: str) -> Markup:
        return zone_options(self.language.code, chosen)

    def here(self, seconds: float) -> datetime:
        """A moment, seconds since 1970, as a clock in the account's zone shows it."""
        return datetime.fromtimestamp(seconds, UTC).astimezone(self.zone)

    def moment(self, seconds: float | None) -> str:
        return "" if seconds is None else self.language.moment(self.here(seconds))

    def ago(self, seconds: float | None) -> str:
        return "" if seconds is None else self.language.ago(seconds - self.now)

    def within(self, path: str) -> bool:
        """Whether this page is there, or below it."""
        return self.path == path or self.path.startswith(f"{path}/")


class Pages:
    """The environments of all languages."""

    def __init__(self, assets: Assets) -> None:
        self._environments = {code: _environment(language, assets) for code, language in languages().items()}

    def render(self, page: Page, template: str, status: int = 200, **words: Any) -> Response:
        """One page. Errors of a form make it 422 (`status`), so that programs see them too."""
        text = self._environments[page.language.code].get_template(template).render(page=page, **words)
        return HTMLResponse(text, status, headers={"content-language": page.language.code, "vary": "cookie, accept-language"})


def meeting_number(number: int) -> str:
    """`123-456-789`."""
    return format_meeting_id(MeetingId(number))


def sentence(text: str) -> str:
    """What a rule says of a field, as a sentence: "A name has 1 to 64 characters."."""
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?…" else f"{text}."


_KNOWN: Final = re.compile(r"""(?<![\w.])(_|asset)\(("[^"\\]*"|'[^'\\]*')\)""")


class _Settled(FileSystemLoader):
    """Sentences without anything to fill in, and addresses of files, are put into a template before it is compiled: as constant text."""

    def __init__(self, language: Language, assets: Assets) -> None:
        super().__init__(TEMPLATES)
        self._known = {"_": language.say, "asset": assets.address}

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, path, fresh = super().get_source(environment, template)
        return _KNOWN.sub(lambda call: json.dumps(self._known[call[1]](call[2][1:-1])), source), path, fresh


def _environment(language: Language, assets: Assets) -> Environment:
    environment = Environment(
        loader=_Settled(language, assets),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        auto_reload=False,
        cache_size=-1,
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_translations(language.translations, newstyle=True)  # type: ignore[attr-defined]  # from the extension
    environment.globals |= {"asset": assets.address}
    environment.filters |= {"say": language.say, "meeting": meeting_number, "duration": language.duration, "sentence": sentence}
    return environment


def redirect(path: str) -> Response:
    """After a form: see the outcome there (303)."""
    return Response(status_code=303, headers={"location": path})
