"""How a session looks in a terminal: pure functions from facts to rich's texts.

Names, chat and titles are other people's words. They have been cleaned (`endpoint.text`) and are put into `Text` objects as they are, so
nothing in them is taken for markup.
"""

import time
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.style import Style
from rich.table import Table
from rich.text import Text

from endpoint import events
from endpoint.cli.room import Person, Room
from endpoint.invitation import Invitation
from endpoint.present import OnAir
from endpoint.watch import Showing
from wire.ids import format_meeting_id

_LIGHTS: dict[OnAir, tuple[str, str]] = {
    OnAir.LIVE: (" ● ON AIR ", "bold white on red3"),
    OnAir.PAUSED: (" ‖ PAUSED ", "bold black on yellow3"),
    OnAir.OFF: (" ○ off air ", "white on grey30"),
}
_WATCHING: dict[str, tuple[str, str]] = {
    Showing.LIVE.value: (" ● LIVE ", "bold white on blue"),
    Showing.PAUSED.value: (" ‖ PAUSED ", "bold black on yellow3"),
    Showing.AWAY.value: (" ○ AWAY ", "bold black on yellow3"),
    Showing.ENDED.value: (" ■ ENDED ", "white on grey30"),
}
_WISHES = {
    "ask-present": " asks to present: /present {number}.",
    "ask-control": " asks for mouse and keyboard: the presenter lends them with /lend.",
    "raise-hand": " raises a hand.",
}
_IDLE = (" ○ waiting ", "white on grey30")
_NAME = "bold cyan"
_FACT = "dim"
_TROUBLE = "yellow"
LISTED: Final = 12
"""People who have a line each; more stand in one paragraph, and /who lists them."""


@dataclass(frozen=True, slots=True)
class View:
    """What the status region shows. Secrets are in it, for the organizer's eyes."""

    title: str
    meeting: str
    on_air: OnAir | None  # None: this side has nothing to share
    showing: str  # what is watched, "" if this side presents
    presenting: str  # by whom
    sharing: str  # what is shared
    picture: str  # where the watched screen is kept; "" if nothing is watched
    frames: int
    bytes: int
    rate_out: float
    rate_in: float
    node: str
    people: tuple[Person, ...]
    waiting: tuple[Person, ...]
    door: str  # how newcomers find it; "" if it is open
    words: str
    badge: str
    link: str = ""
    password: str = ""
    typed: str | None = None  # None: nobody types here

    @classmethod
    def of(cls, room: Room, typed: str | None) -> "View":
        presenter, session, invitation = room.presenter, room.session, room.invitation
        presents = session.state.presenter == session.me
        rate_out, rate_in = room.rates()
        return cls(
            title=room.title,
            meeting=room.meeting,
            on_air=room.on_air if presenter or presents or room.hosting else None,
            showing=room.showing,
            presenting=room.presenting,
            sharing=room.sharing,
            picture="" if presents or not room.viewer.written else str(room.picture),
            frames=presenter.frames + presenter.snapshots if presents and presenter else room.watcher.frames,
            bytes=session.bytes_sent if presents else session.bytes_received,
            rate_out=rate_out,
            rate_in=rate_in,
            node=session.node,
            people=tuple(room.people()),
            waiting=tuple(room.waiting()),
            door="locked" if session.state.locked else "knocking" if session.state.knock else "",
            words=room.words,
            badge=room.badge.value,
            link=invitation.link() if room.hosting else "",
            password=invitation.password or "" if room.hosting else "",
            typed=typed,
        )


def status(view: View, width: int) -> RenderableType:
    """The region at the bottom of the terminal, `width` cells wide."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style=_FACT, no_wrap=True)
    rows.add_column(overflow="fold")
    if view.link:
        fits = cell_len(view.link) + 14 < width  # a link in two pieces cannot be copied
        rows.add_row("link", Text(view.link, style="bold") if fits else Text("type /link to see it in one piece", style=_FACT))
        rows.add_row("password", Text(view.password, style="bold green") if view.password else Text("none", style=_TROUBLE))
    rows.add_row("compare", Text.assemble(view.words, ("  (by voice: the same at everyone)", _FACT)))
    rows.add_row("secrecy", Text(view.badge))
    if view.waiting:
        rows.add_row(f"knocking ({len(view.waiting)})", Text.assemble(listed(view.waiting), ("\n/let in NAME, or /turn away NAME", _FACT)))
    rows.add_row(f"here ({len(view.people)})", listed(view.people) if len(view.people) <= LISTED else roster(view.people))
    rows.add_row("screen", _screen(view))
    parts: list[RenderableType] = [Text("─" * width, style=_FACT), _banner(view, width), rows]
    if view.typed is not None:
        parts.append(_prompt(view.typed, width))
    return Group(*parts)


def _banner(view: View, width: int) -> Text:
    """The on-air light (of a side that only watches: whether it sees something), and the relay at the right end."""
    light, style = _WATCHING.get(view.showing, _IDLE) if view.on_air is None else _LIGHTS[view.on_air]
    left = Text.assemble((light, style), "  ", (view.meeting, "bold"), "  ", (view.title, "bold"), (f"  {view.door}", _TROUBLE))
    right = Text.assemble("via ", (view.node, "green")) if view.node else Text("no relay, trying again", style="bold yellow")
    room = width - cell_len(right.plain) - 1
    left.truncate(max(room, 0), overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right, no_wrap=True, overflow="crop")


def _screen(view: View) -> Text:
    frames = f"{view.frames:,} frame{'' if view.frames == 1 else 's'}, {decimal(view.bytes)}"
    moved = f"{frames} · ↑ {decimal(int(view.rate_out))}/s ↓ {decimal(int(view.rate_in))}/s".replace("bytes", "B")
    if view.sharing:
        return Text.assemble((view.sharing, "bold"), (f" · {moved}", _FACT))
    if view.showing:
        what = view.showing + (f": {view.presenting}'s screen" if view.presenting else "")
    else:
        what = "you present, and have nothing to show: that takes --share"
    return Text.assemble((what, "bold"), (f" · {moved}", _FACT), *([("\n" + view.picture, "green")] if view.picture else []))


def listed(people: tuple[Person, ...]) -> Text:
    """A line each: number, name, what is true."""
    text = Text()
    for person in people:
        style = Style.parse(_NAME) + Style(dim=person.presence != "here")
        text.append(f"{person.number:>3} ", style=_FACT).append(person.name, style=style)
        if person.notes:
            text.append("  " + ", ".join(person.notes), style=_FACT)
        text.append("\n")
    text.rstrip()
    return text


def roster(people: tuple[Person, ...]) -> Text:
    """Everyone, with what is true of each."""
    text = Text()
    for person in people:
        if text:
            text.append(", ", style=_FACT)
        text.append(person.name, style=Style.parse(_NAME) + Style(dim=person.away))
        if person.notes:
            text.append(f" ({', '.join(person.notes)})", style=_FACT)
    return text


def _prompt(typed: str, width: int) -> Text:
    """The line that is being typed, its end in sight."""
    room = max(width - 4, 1)
    if cell_len(typed) > room:
        while cell_len(typed) > room - 1:
            typed = typed[1:]
        typed = "…" + typed
    hint = ("  type to chat, /help for commands", _FACT) if not typed else ""
    return Text.assemble(("> ", "bold"), typed, ("▏", "blink"), hint, no_wrap=True, overflow="crop")


def chat_line(event: events.ChatReceived) -> Text:
    when = time.strftime("%H:%M", time.localtime(min(max(event.time_ms // 1000, 0), 1 << 32)))
    return Text.assemble((f"{when} ", _FACT), (event.name, _NAME), ": ", event.text)


def sentence(event: events.Event, room: Room) -> Text | None:
    """What an event is in words; None for what the status shows anyway."""

    def name(of: str) -> tuple[str, str]:
        return of, _NAME

    match event:
        case events.ChatReceived():
            return chat_line(event)
        case events.ChatWithdrawn():
            return Text.assemble(("The last lines of ", _FACT), name(event.name), (" came too late and do not count.", _FACT))
        case events.ControlChanged():
            if not event.participant:
                return Text("Mouse and keyboard are the presenter's alone again.", style=_FACT)
            return Text.assemble(name(event.name), (" has the presenter's mouse and keyboard.", _FACT))
        case events.MemberJoined():
            return Text.assemble(name(event.name), (" is here.", _FACT))
        case events.MemberLeft():
            return Text.assemble(name(event.name), (" was removed." if event.dismissed else " has left.", _FACT))
        case events.WhisperReceived() if event.participant == room.session.me:
            return Text.assemble(("to ", _FACT), name(event.to), (" alone: ", _FACT), event.text)
        case events.WhisperReceived():
            return Text.assemble(name(event.name), (" to you alone: ", _TROUBLE), event.text)
        case events.WhisperUndelivered():
            return Text.assemble(name(event.name), (f" is gone and has not read your last whisper ({event.lines}).", _TROUBLE))
        case events.Renamed():
            return Text.assemble(name(event.former), (" is listed as ", _FACT), name(event.name))
        case events.DoorChanged():
            how = "Nobody else comes in." if event.locked else "Newcomers wait to be let in." if event.knock else "The door is open."
            return Text(how, style=_FACT)
        case events.OrganizerChanged():
            if event.participant == room.session.me:
                return Text("You organize this session now, for good. /help lists what you can do.", style=_TROUBLE)
            what = " has taken over and organizes this session now." if event.took_over else " organizes this session now."
            return Text.assemble(name(event.name), (what, _TROUBLE))
        case events.SuccessorsChanged():
            names = ", ".join(room.call(i) for i in event.participants)
            return Text(f"May take over after 60 s of silence: {names or 'nobody'}.", style=_FACT)
        case events.ChairOffered():
            return Text.assemble(name(event.name), (" offers you the organizer's role, for good: /accept or /decline.", _TROUBLE))
        case events.OfferDeclined():
            return Text.assemble(name(event.name), (" does not want to organize.", _TROUBLE))
        case events.Knocked():
            number = room.number(event.participant)
            return Text.assemble(name(event.name), (f" knocks: /let in {number}, or /turn away {number}.", _TROUBLE))
        case events.PresenterChanged() if event.participant == room.session.me:
            begin = ": /share begins to show your screen." if room.presenter is not None and not room.presenter.started else "."
            return Text(f"You present{begin}", style=_TROUBLE)
        case events.PresenterChanged():
            return Text.assemble(name(event.name), (" presents.", _FACT)) if event.name else Text("Nobody presents.", style=_FACT)
        case events.ChatRightChanged():
            who = room.session.member.name(event.participant) if event.participant else "Everyone"
            return Text.assemble(name(who), (" may chat." if event.allowed else " may not chat any more.", _FACT))
        case events.Wish():
            return Text.assemble(name(event.name), (_WISHES[event.verb].format(number=room.number(event.participant)), _TROUBLE))
        case events.JoinRefused():
            return Text(f"Somebody did not get in: {event.reason}.", style=_TROUBLE)
        case events.LinkChanged():
            if event.node:
                return Text(f"Connected to {event.node}.", style=_FACT)
            return Text(event.reason, style=_TROUBLE)
        case events.OrganizerMissing():
            missing = "Nothing is heard from the organizer: it cannot be reached, or a server withholds it."
            return Text(missing if event.missing else "The organizer is heard again.", style=_TROUBLE)
        case events.Dropped():
            who = f" ({room.call(event.participant)})" if event.participant else ""
            return Text(f"{event.name}{who}: {event.sentence}", style=_TROUBLE)
        case events.SessionEnded():
            return Text("The meeting has ended.", style="bold")
        case events.Removed():
            return Text(event.sentence, style="bold")
        case _:
            return None


def invitation_text(invitation: Invitation, title: str, words: str) -> Text:
    """What a host gives to those who are to come. The link stands in a line of its own, to be copied."""
    password = invitation.password
    return Text.assemble(
        ("Meeting   ", _FACT), (format_meeting_id(invitation.meeting), "bold"), "  ", title, "\n",
        ("Link      ", _FACT), (invitation.link(), "bold"), "\n",
        ("Password  ", _FACT), (password or "none", "bold green"), "\n",
        ("Compare   ", _FACT), words, "\n",
        ("Secrecy   ", _FACT), invitation.badge.value,
    )  # fmt: skip


def invitation_facts(invitation: Invitation, title: str, words: str) -> dict[str, object]:
    """The same for a program: the organizer asked for it on its own standard output."""
    return {
        "meeting_id": invitation.meeting,
        "title": title,
        "link": invitation.link(),
        "password": invitation.password or "",
        "words": words,
        "badge": invitation.badge.value,
        "manager": invitation.site,
    }
