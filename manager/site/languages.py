"""Words, dates and zones in the reader's language: gettext catalogues through Babel.

English is what templates and rules say; `locale/LANGUAGE/LC_MESSAGES/site.po` says it otherwise, and is compiled when the manager starts.
`python -m manager.site.languages` brings the catalogues up to date after words have changed (`make words`).
"""

import ast
import gettext
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Final
from zoneinfo import available_timezones

from babel import Locale, negotiate_locale
from babel.core import get_global
from babel.dates import format_date, format_datetime, format_timedelta
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from markupsafe import Markup

LANGUAGES: Final = {"en": "English", "fr": "Français"}
"""Each in its own words."""
HERE: Final = Path(__file__).parent
PROGRAMS: Final = {"__main__.py", "commands.py", "api.py", "api_types.py", "openapi.py", "idempotency.py"}
"""Modules that speak to programs and operators, in English."""
_REGION: Final = {"en": "en_GB", "fr": "fr_FR"}
"""Where the dates of a language come from: a day before its month."""


class Language:
    """One language, compiled."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.locale = Locale.parse(_REGION[code])
        self.translations = gettext.NullTranslations() if code == "en" else _compiled(code)

    def say(self, text: str) -> str:
        """A sentence of ours in this language; one that the catalogue lacks comes back as it is."""
        return self.translations.gettext(text) if text else ""

    def when(self, when: datetime) -> str:
        """Thursday 24 December 2026, 15:00."""
        return format_datetime(when, "EEEE d MMMM y, HH:mm", locale=self.locale)

    def moment(self, when: datetime) -> str:
        """24 Dec 2026, 15:00."""
        return format_datetime(when, "d MMM y, HH:mm", locale=self.locale)

    def month(self, when: datetime) -> str:
        """Short: "Nov"."""
        return format_date(when, format="LLL", locale=self.locale)

    def ago(self, seconds: float) -> str:
        """`seconds` from now: negative is past. "3 minutes ago"."""
        return format_timedelta(timedelta(seconds=round(seconds)), add_direction=True, locale=self.locale)

    def duration(self, seconds: float) -> str:
        """ "1 h 30 min"; less than a minute is said in seconds."""
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        parts = [(hours, "h"), (minutes, "min"), (rest if not hours and not minutes else 0, "s")]
        return " ".join(f"{count}\u00a0{unit}" for count, unit in parts if count) or "0\u00a0s"


@lru_cache(256)
def zone_options(code: str, chosen: str) -> Markup:
    """Every zone as an option of a list, in this language, by name: `Europe/Paris – France`. Four hundred lines that seldom change."""
    locale, aliases = languages()[code].locale, get_global("zone_aliases")
    options = []
    for name in ["UTC", *_zone_names()]:
        place = locale.territories.get(get_global("zone_territories").get(aliases.get(name, name), ""))
        said = f"{name.replace('_', ' ')} – {place}" if place and name != "UTC" else name
        options.append(Markup('<option value="{}"{}>{}</option>').format(name, Markup(" selected") if name == chosen else "", said))
    return Markup("").join(options)


@cache
def languages() -> dict[str, Language]:
    return {code: Language(code) for code in LANGUAGES}


def choose(chosen: str | None, accepted: str) -> Language:
    """By the reader's choice, else by what the browser accepts, else English. Both are a stranger's words."""
    known = languages()
    if chosen in known:
        return known[chosen]
    return known[_negotiated(accepted[:200])]


@cache
def _zone_names() -> list[str]:
    """The zones that people choose from: one a place, no abbreviations."""
    outer = ("Africa/", "America/", "Antarctica/", "Arctic/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Indian/", "Pacific/")
    return sorted(name for name in available_timezones() if name.startswith(outer))


def _negotiated(accepted: str) -> str:
    weighed: list[tuple[float, str]] = []
    for part in accepted.split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            weighed.append((-float(weight or 1), tag.strip().replace("-", "_")))
        except ValueError:
            continue
    wanted = [tag for _, tag in sorted(weighed, key=lambda item: item[0])]
    return (negotiate_locale([tag.partition("_")[0] for tag in wanted], list(LANGUAGES)) if wanted else None) or "en"


def _compiled(code: str) -> gettext.GNUTranslations:
    compiled = BytesIO()
    write_mo(compiled, catalogue(code))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def _path(code: str) -> Path:
    return HERE / "locale" / code / "LC_MESSAGES" / "site.po"


def catalogue(code: str) -> Catalog:
    """A language's catalogue as it stands in the tree."""
    with _path(code).open("rb") as file:
        return read_po(file, locale=code)


def said() -> Iterator[tuple[str | tuple[str, str], str]]:
    """Everything that the pages say, their own words and those of the rules, with the file that says it."""
    methods = [("**/templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]
    keywords: dict[str, tuple[int, ...] | None] = {"_": None, "gettext": None, "ngettext": (1, 2), "N_": None}
    options = {"**/templates/**.html": {"newstyle_gettext": "true", "trimmed": "true"}}
    for file, _, message, _, _ in extract_from_dir(HERE, methods, options, keywords):
        yield (message[0], message[1]) if isinstance(message, tuple) else message, Path(file).name
    for path in sorted(path for path in [*HERE.parent.glob("*.py"), *HERE.glob("*.py")] if path.name not in PROGRAMS):
        yield from ((sentence, path.name) for sentence in _refused(ast.parse(path.read_text("utf-8"))))


def _refused(source: ast.AST) -> Iterator[str]:
    """What rules say when they refuse: the sentence of every refusal, and what is wrong with a field."""
    for node in ast.walk(source):
        if isinstance(node, ast.ClassDef):
            named = (n.value for n in node.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "sentence")
            yield from _constants(named)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "RequestMalformed":
            yield from _constants(node.args)
            yield from _constants(v for word in node.keywords if isinstance(word.value, ast.Dict) for v in word.value.values)


def _constants(nodes: Iterable[ast.expr]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def update(code: str) -> tuple[int, int]:
    """Bring a catalogue up to date: new words without a translation, old ones gone. How many there are, and how many lack one."""
    old = catalogue(code) if _path(code).exists() else Catalog(locale=code)
    fresh = Catalog(locale=code, project="Parley", fuzzy=False, header_comment="# What the site says, in another language.")
    for words, file in said():
        known = old.get(words if isinstance(words, str) else words[0])
        fresh.add(words, None if known is None else known.string, locations=[(file, 0)])
    with _path(code).open("wb") as target:
        write_po(target, fresh, width=140, sort_by_file=True, include_lineno=False)
    return len(fresh), len(untranslated(fresh))


def untranslated(found: Catalog) -> list[str]:
    """What a catalogue leaves in English."""
    return [str(m.id) for m in found if m.id and (not m.string or (isinstance(m.string, tuple | list) and not all(m.string)) or m.fuzzy)]


if __name__ == "__main__":
    for language in LANGUAGES:
        if language != "en":
            count, missing = update(language)
            sys.stdout.write(f"{language}: {count} sentences, {missing} without a translation\n")
