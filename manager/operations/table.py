"""What a call of the API is: its shape, the words of its path and query, and the table that all of them stand in."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from manager import api_types as t
from manager.callers import Caller, Scope
from manager.desk import MAX_PATIENCE
from manager.errors import RequestMalformed, SignInNeeded
from manager.house import House
from wire.ids import MeetingId, SessionId

YEAR_2100: Final = 4_102_444_800.0


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a path or query: its pattern, and what is said when it does not match."""

    pattern: str
    what: str
    example: str


WORDS: Final = {
    "meeting": Word("[1-9][0-9]{8}", "a meeting ID has nine digits, the first one not 0", "123456789"),
    "session": Word("[0-9a-f]{16}", "a session ID has 16 hex digits, in lower case", "0123456789abcdef"),
    "number": Word("[1-9][0-9]{0,8}", "a number has one to nine digits, the first one not 0", "17"),
    "wait": Word(r"[0-9]{1,2}(\.[0-9]{1,3})?", f"wait is a number of seconds from 0 to {MAX_PATIENCE:.0f}", "20"),
    "from": Word(r"[0-9]{1,10}", "from is a time in seconds since 1970", "1767225600"),
    "to": Word(r"[0-9]{1,10}", "to is a time in seconds since 1970", "1798761600"),
    "before": Word("[1-9][0-9]{0,8}", "before is a record's number", "1000"),
    "search": Word(r"[^\x00-\x1f]{0,254}", "search is a part of a name or an e-mail address", "ann"),
    "format": Word("json|csv", "format is json or csv", "json"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked. `signed_in`: None where anybody may call."""

    house: House
    now: float
    address: str
    agent: str
    words: dict[str, str]
    body: Any
    signed_in: Caller | None = None

    @property
    def caller(self) -> Caller:
        if self.signed_in is None:
            raise SignInNeeded
        return self.signed_in

    @property
    def meeting(self) -> MeetingId:
        return MeetingId(int(self.words["meeting"]))

    @property
    def session(self) -> SessionId:
        return SessionId(int(self.words["session"], 16))

    @property
    def number(self) -> int:
        return int(self.words["number"])

    @property
    def period(self) -> tuple[float, float]:
        return float(self.words.get("from", "0")), float(self.words.get("to", f"{YEAR_2100:.0f}"))


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is no JSON."""

    content: bytes
    media_type: str
    filename: str


Act = Callable[[Call], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`scope`: what an API key needs; `people`: only who is signed in with a password may call; neither: anybody.
    `replays`: an `Idempotency-Key` makes a repetition return the first answer."""

    method: str
    path: str
    name: str
    summary: str
    act: Act = field(repr=False)
    takes: type[Any] = t.Nothing
    gives: type[Any] | str = t.Done  # a media type for what is no JSON
    status: int = 200
    scope: Scope | None = None
    people: bool = False
    query: tuple[str, ...] = ()
    example: dict[str, Any] = field(default_factory=dict)
    replays: bool = False


OPERATIONS: Final[list[Operation]] = []


def operation(method: str, path: str, summary: str, **rest: Any) -> Callable[[Act], Act]:
    """Put a function into the table, under its own name."""

    def add(act: Act) -> Act:
        OPERATIONS.append(Operation(method, f"/api/v1{path}", act.__name__, summary, act, **rest))
        return act

    return add


def word_untrusted(name: str, text: str) -> str:
    """A word of a path or query. Raises `RequestMalformed`."""
    word = WORDS[name]
    if re.fullmatch(word.pattern, text, re.ASCII) is None:
        raise RequestMalformed(word.what, fields={name: word.what})
    return text
