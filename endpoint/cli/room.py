"""One running session as the command line sees it: the session, what is shared, what is watched, and facts about them."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
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
    sentence: ClassVar[str] = "More than one person here has a name that begins so; write more of it."


@dataclass(frozen=True, slots=True)
class Person:
    participant: ParticipantId
    name: str
    me: bool
    organizer: bool
    presents: bool
    away: bool
    muted: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What is true of this person, in words."""
        held = {"you": self.me, "organizer": self.organizer, "presents": self.presents, "away": self.away, "muted": self.muted}
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
    view: Callable[[], None] | None = None  # opens the viewer's window again
    dropped: Counter[str] = field(default_factory=Counter)
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
            return "reconnecting"
        return Showing.ENDED.value if session.state.ended else self.watcher.showing.value

    @property
    def presenting(self) -> str:
        """The presenter's name; "" if nobody presents."""
        presenter = self.session.state.presenter
        return self.session.member.name(presenter) if presenter else ""

    def people(self) -> list[Person]:
        """Everyone on the list, the organizer first, then in the order of their coming."""
        session, state = self.session, self.session.state
        found = [
            Person(
                participant,
                session.member.name(participant),
                participant == session.me,
                participant == state.organizer,
                participant == state.presenter,
                participant in session.member.away,
                not state.chat.get(participant, state.chat_default),
            )
            for participant in state.members
        ]
        return sorted(found, key=lambda person: not person.organizer)

    def find(self, name: str) -> ParticipantId:
        """Who is meant: a whole name, the only one that begins so, or #ID. Raises NobodyOfThatName, NameAmbiguous."""
        people, wanted = self.people(), clean_line(name).casefold()
        if wanted.startswith("#"):
            found = [person for person in people if f"#{person.participant}" == wanted]
        else:
            found = [person for person in people if person.name.casefold() == wanted]
            found = found or [person for person in people if wanted and person.name.casefold().startswith(wanted)]
        if not found:
            raise NobodyOfThatName
        if len(found) > 1:
            raise NameAmbiguous
        return found[0].participant

    def rates(self) -> tuple[float, float]:
        """Bytes a second, out and in, of the last seconds. Ask regularly."""
        now = trio.current_time()
        self._rates.append((now, self.session.bytes_sent, self.session.bytes_received))
        while len(self._rates) > 2 and now - self._rates[0][0] > RATE_OVER:
            self._rates.popleft()
        since, sent, received = self._rates[0]
        span = max(now - since, 0.5)
        return (self.session.bytes_sent - sent) / span, (self.session.bytes_received - received) / span
