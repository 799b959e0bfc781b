"""One running session as the command line sees it: the session, what is shared, what is watched, and facts about them."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final

import trio

from endpoint.errors import EndpointError
from endpoint.invitation import Badge, Invitation
from endpoint.present import OnAir, Presenter
from endpoint.remote_control import Lender
from endpoint.screen.source import Source
from endpoint.screen.viewer import PngViewer
from endpoint.session import Session
from endpoint.text import clean_line
from endpoint.watch import Showing, Watcher
from endpoint.words import comparison_words
from wire.ids import ParticipantId, format_meeting_id

RATE_OVER: Final = 3.0
"""Seconds over which bandwidth is averaged."""


class NobodyOfThatName(EndpointError):
    name: ClassVar[str] = "nobody-of-that-name"
    sentence: ClassVar[str] = "Nobody here has that name; /who lists all."


class NameAmbiguous(EndpointError):
    name: ClassVar[str] = "name-ambiguous"
    sentence: ClassVar[str] = "More than one person here has a name that begins so; write more of it, or the number."


LEFT_SHOWN: Final = 5
"""Those who left last are still on the list."""


@dataclass(frozen=True, slots=True)
class Person:
    """`presence`: here, away, left, or waiting to be let in. `rtt_ms`: between this member and its relay, as it says; None: not known here."""

    participant: ParticipantId
    number: int  # short, for this program's person alone
    name: str
    me: bool
    organizer: bool
    presents: bool
    away: bool
    muted: bool
    controls: bool = False
    successor: bool = False
    presence: str = "here"
    rtt_ms: int | None = None
    refused: int = 0  # what it sent without the right to

    @property
    def notes(self) -> tuple[str, ...]:
        """What is true of this person, in words."""
        held = {
            "you": self.me,
            "organizer": self.organizer,
            "presents": self.presents,
            "controls": self.controls,
            "successor": self.successor,
            "muted": self.muted,
            self.presence: self.presence != "here",
            f"{self.rtt_ms} ms": self.rtt_ms is not None,
            f"{self.refused} refused": self.refused > 0,
        }
        return tuple(word for word, true in held.items() if true)


@dataclass(slots=True)
class Room:
    """Owned by `endpoint.cli.attend`."""

    session: Session
    invitation: Invitation
    watcher: Watcher
    viewer: PngViewer
    picture: Path
    finish: trio.Event  # set: leave, or end
    presenter: Presenter | None = None
    source: Source | None = None
    lender: Lender | None = None
    password_changed: Callable[[str], None] = lambda password: None  # whoever keeps the invitation
    view: Callable[[], None] | None = None  # opens the viewer's window again
    dropped: Counter[str] = field(default_factory=Counter)
    numbers: dict[ParticipantId, int] = field(default_factory=dict)
    _rates: deque[tuple[float, int, int]] = field(default_factory=deque)

    @property
    def hosting(self) -> bool:
        return self.session.member.organizes

    @property
    def title(self) -> str:
        return clean_line(self.session.ticket.title)

    @property
    def meeting(self) -> str:
        return format_meeting_id(self.session.ticket.meeting)

    @property
    def badge(self) -> Badge:
        return self.invitation.badge

    @property
    def words(self) -> str:
        return comparison_words(self.session.ticket.meeting_key)

    @property
    def sharing(self) -> str:
        """What is shared, in words; "" if this side does not present."""
        presents = self.session.state.presenter == self.session.me
        return self.source.name if presents and self.source else ""

    @property
    def on_air(self) -> OnAir:
        return self.presenter.on_air if self.presenter else OnAir.OFF

    @property
    def showing(self) -> str:
        """What the watching side sees, in words; "" if this side presents."""
        session = self.session
        if session.state.presenter == session.me:
            return ""
        if not session.node and not session.over:
            return Showing.RECONNECTING.value
        if session.state.ended:
            return Showing.ENDED.value
        away = self.watcher.showing is Showing.LIVE and session.member.misses(session.state.presenter)
        return Showing.AWAY.value if away else self.watcher.showing.value

    @property
    def presenting(self) -> str:
        """The presenter's name; "" if nobody presents."""
        presenter = self.session.state.presenter
        return self.session.member.name(presenter) if presenter else ""

    def call(self, participant: ParticipantId) -> str:
        """Who, in a sentence."""
        return "Everyone" if not participant else "You" if participant == self.session.me else self.session.member.name(participant)

    def change_password(self, password: str) -> None:
        """Our copy of the invitation; and whoever keeps it is told."""
        self.invitation = replace(self.invitation, password=password)
        self.password_changed(password)

    def number(self, participant: ParticipantId) -> int:
        """Short names for participant IDs, in the order in which they were first seen here."""
        return self.numbers.setdefault(participant, len(self.numbers) + 1)

    def people(self) -> list[Person]:
        """Everyone on the list, the organizer first, then in the order of their coming."""
        found = [self._person(participant) for participant in self.session.state.members]
        return sorted(found, key=lambda person: not person.organizer)

    def _person(self, participant: ParticipantId) -> Person:
        session, state, member = self.session, self.session.state, self.session.member
        rtt = session.rtt if participant == session.me else member.chair.rtt.get(participant) if member.organizes else None
        away = member.misses(participant)
        return Person(
            participant,
            self.number(participant),
            member.name(participant),
            participant == session.me,
            participant == state.organizer,
            participant == state.presenter,
            away,
            not state.chat.get(participant, state.chat_default),
            participant == state.control,
            participant in state.successors,
            "away" if away else "here",
            None if rtt is None else round(rtt * 1000),
            member.refused.get(participant, 0),
        )

    def left(self) -> list[Person]:
        """Those who were here last."""
        gone = list(self.session.state.departed.values())[-LEFT_SHOWN:]
        return [self._other(ParticipantId(member.id), self.session.member.name(ParticipantId(member.id)), "left") for member in gone]

    def waiting(self) -> list[Person]:
        """Guests who wait to be let in: the organizer sees them."""
        if not self.hosting:
            return []
        return [self._other(guest, side.name, "waiting") for guest, side in self.session.member.chair.lobby.waiting.items()]

    def _other(self, participant: ParticipantId, name: str, presence: str) -> Person:
        return Person(participant, self.number(participant), name, False, False, False, False, False, presence=presence)

    def find(self, name: str, *, waiting: bool = False) -> ParticipantId:
        """Who is meant: a number of the list, a whole name, the only one that begins so, or #ID.

        `waiting`: of those who wait to be let in. Raises NobodyOfThatName, NameAmbiguous, which names all who may be meant.
        """
        people, wanted = self.waiting() if waiting else self.people(), clean_line(name).casefold()
        if wanted.startswith("#"):
            found = [person for person in people if f"#{person.participant}" == wanted]
        else:
            found = [person for person in people if wanted in (person.name.casefold(), str(person.number))]
            found = found or [person for person in people if wanted and person.name.casefold().startswith(wanted)]
        if not found and not wanted:
            raise NobodyOfThatName("Write whose name is meant behind it, or the number from the list.")
        if not found:
            raise NobodyOfThatName("Nobody of that name waits." if waiting else "")
        if len(found) > 1:
            raise NameAmbiguous("Which one? " + ", ".join(f"{person.name} ({person.number})" for person in found) + ". The number will do.")
        return found[0].participant

    def finds(self, names: str) -> list[ParticipantId]:
        """Several, with commas between them; none for none."""
        return [self.find(name) for name in names.split(",") if name.strip()]

    def rates(self) -> tuple[float, float]:
        """Bytes a second, out and in, of the last seconds. Ask regularly."""
        now = trio.current_time()
        self._rates.append((now, self.session.bytes_sent, self.session.bytes_received))
        while len(self._rates) > 2 and now - self._rates[0][0] > RATE_OVER:
            self._rates.popleft()
        since, sent, received = self._rates[0]
        span = max(now - since, 0.5)
        return (self.session.bytes_sent - sent) / span, (self.session.bytes_received - received) / span
