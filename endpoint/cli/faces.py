"""How a session meets its person, or its program: a live terminal, plain lines, or lines of JSON.

LiveFace    what happens scrolls by; below it a region is kept fresh, and the line that is being typed
PlainFace   what happens, a line each; lines of standard input are chat and commands
JsonFace    one JSON object a line, both ways
"""

import io
import json
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict
from typing import Any, Final, Protocol, TextIO, cast

import click
import msgspec
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from endpoint import events
from endpoint.cli import view
from endpoint.cli.commands import COMMANDS, Order, completions, json_order_untrusted, typed_order
from endpoint.cli.keys import LineEditor, LineParser, at_keyboard, read_lines, single_keys
from endpoint.cli.room import Room
from endpoint.errors import EndpointError
from wire.errors import ParleyError

REDRAW: Final = 0.1
"""Seconds between two drawings at least; a second at most."""
NAMES: Final[dict[type[events.Event], str]] = {
    events.Joined: "joined",
    events.MemberJoined: "member-joined",
    events.MemberLeft: "member-left",
    events.PresenterChanged: "presenter",
    events.ControlChanged: "control",
    events.ChatReceived: "chat",
    events.ChatWithdrawn: "chat-withdrawn",
    events.ChatRightChanged: "chat-right",
    events.PresenceChanged: "presence",
    events.WhisperReceived: "whisper",
    events.WhisperRead: "whisper-read",
    events.WhisperUndelivered: "whisper-undelivered",
    events.Renamed: "renamed",
    events.DoorChanged: "door",
    events.OrganizerChanged: "organizer",
    events.SuccessorsChanged: "successors",
    events.ChairOffered: "chair-offered",
    events.OfferDeclined: "offer-declined",
    events.KeyChanged: "key-changed",
    events.Knocked: "knock",
    events.KnockEnded: "knock-ended",
    events.Wish: "wish",
    events.JoinRefused: "join-refused",
    events.LinkChanged: "link",
    events.Dropped: "dropped",
    events.OrganizerMissing: "organizer-missing",
    events.SessionEnded: "ended",
    events.Removed: "removed",
}
"""The `event` of each line of JSON."""


class Face(Protocol):
    @contextmanager
    def shown(self, room: Room) -> Iterator[None]:
        """While the session runs."""

    async def run(self) -> None:
        """Keep fresh what is shown, until cancelled."""

    def tell(self, event: events.Event) -> None:
        """Something has happened in the session."""

    def state(self, name: str, **facts: Any) -> None:
        """Something of our own has changed: `on-air`, `watching`, `picture`, `must-wait`."""

    def say(self, text: str) -> None:
        """For a person: something beside the session."""

    def answer(self, order: Order, text: str) -> None:
        """What was asked for is done, and this has come of it."""

    def refuse(self, error: ParleyError) -> None:
        """What was asked for is not done."""

    def orders(self) -> AsyncGenerator[Order, None]:
        """What is asked for, until standard input ends."""


class PlainFace:
    """Lines on standard output."""

    def __init__(self, console: Console | None = None, lines: AsyncGenerator[str, None] | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._room: Room | None = None
        self._lines = lines
        self._linked: bool | None = None
        self._complained: set[tuple[str, int]] = set()

    @contextmanager
    def shown(self, room: Room) -> Iterator[None]:
        self._room = room
        if room.hosting:
            self._print(view.invitation_text(room.invitation, room.title, room.words), whole=True)
        else:
            self._print(Text.assemble((room.meeting, "bold"), " ", (room.title, "bold"), f" · {room.badge} · compare: {room.words}"))
            self._print(Text.assemble(("here: ", "dim"), view.roster(tuple(room.people()))))
        yield

    async def run(self) -> None:
        await trio.sleep_forever()

    def tell(self, event: events.Event) -> None:
        assert self._room is not None
        if isinstance(event, events.LinkChanged):
            if bool(event.node) == self._linked:
                return
            self._linked = bool(event.node)
        if isinstance(event, events.Dropped):
            self._room.dropped[event.name] += 1
            if (event.name, event.participant) in self._complained or len(self._complained) >= 100:
                return  # whoever sends nonsense fills no screen with it
            self._complained.add((event.name, event.participant))
        text = view.sentence(event, self._room)
        if text is not None:
            self._print(text)

    def state(self, name: str, **facts: Any) -> None:
        if name == "must-wait":
            self.say("The password is right. The organizer has to let you in; waiting …")
        elif name in ("on-air", "watching") and facts["state"]:
            self._print(Text(f"{'sharing' if name == 'on-air' else name}: {facts['state']}", style="dim"))

    def say(self, text: str) -> None:
        self._print(Text(text, style="dim"))

    def answer(self, order: Order, text: str) -> None:
        self._print(Text(text, style="green"))

    def refuse(self, error: ParleyError) -> None:
        self._print(Text(str(error), style="yellow"))

    def _print(self, text: Text, *, whole: bool = False) -> None:
        """`whole`: lines are not broken, so that a link can be copied. A pipe gets no broken line at all."""
        self.console.print(text, soft_wrap=whole or not self.console.is_terminal)

    async def orders(self) -> AsyncGenerator[Order, None]:
        async with aclosing(self._lines or read_lines(LineParser())) as lines:
            async for line in lines:
                order = typed_order(line)
                if order is not None and not self._show(order):
                    yield order

    def _show(self, order: Order) -> bool:
        """Commands that only show something."""
        room = self._room
        assert room is not None
        match order.do:
            case "who":
                self._print(view.listed((*room.waiting(), *room.people(), *room.left())))
            case "link" if room.hosting:
                self._print(view.invitation_text(room.invitation, room.title, room.words), whole=True)
            case "help":
                shown = [c for c in COMMANDS.values() if not (c.guest if room.hosting else c.host)]
                usages = [(c.usage, c.help) for c in shown] + [("/who", "everyone who is here")]
                usages += [("/link", "the invitation again")] if room.hosting else []
                self._print(Text("\n".join(f"  {usage:22} {text}" for usage, text in usages)))
            case _:
                return False
        return True


class _Screen(io.TextIOBase):
    """Standard output that may vanish: who closes the window sends SIGHUP, and the meeting is still ended in order, unseen."""

    def __init__(self) -> None:
        self._out = sys.stdout

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()

    def fileno(self) -> int:
        return self._out.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in the standard library's types
        return self._out.encoding


class LiveFace(PlainFace):
    """A terminal: what happens scrolls by above a region that is kept fresh."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._editor = LineEditor(self._complete) if at_keyboard() else None
        self._live: Live | None = None
        self._news = trio.Event()

    @contextmanager
    def shown(self, room: Room) -> Iterator[None]:
        with super().shown(room):
            keys = single_keys() if self._editor else _nothing()
            with keys, Live(console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
                self._live = live
                self._draw()
                yield

    def _complete(self, line: str) -> list[str]:
        found = completions(self._room, line) if self._room else []
        if len(found) > 1:
            self._print(Text("  ".join(word.rstrip() for word in found), style="dim"))
        return found

    async def run(self) -> None:
        while True:
            with trio.move_on_after(1.0):
                await self._news.wait()
            self._news = trio.Event()
            self._draw()
            await trio.sleep(REDRAW)

    def _draw(self) -> None:
        if self._live is not None and self._room is not None:
            typed = self._editor.text if self._editor else None
            width = self.console.width
            self._live.update(view.status(view.View.of(self._room, typed), width), refresh=True)

    def tell(self, event: events.Event) -> None:
        super().tell(event)
        self._news.set()

    def state(self, name: str, **facts: Any) -> None:
        if name == "must-wait":
            super().state(name)
        self._news.set()

    async def orders(self) -> AsyncGenerator[Order, None]:
        if self._editor is None:
            return
        async with aclosing(read_lines(_Drawn(self._editor, self))) as lines:
            async for line in lines:
                if line.startswith("/"):
                    self._print(Text(f"> {line}", style="dim"))
                order = typed_order(line)
                if order is not None and not self._show(order):
                    yield order


class _Drawn:
    """An editor whose every key is shown."""

    def __init__(self, editor: LineEditor, face: LiveFace) -> None:
        self._editor = editor
        self._face = face

    def feed(self, data: bytes) -> list[str]:
        lines = self._editor.feed(data)
        self._face._draw()
        return lines

    def rest(self) -> list[str]:
        return []


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class JsonFace:
    """For programs: one JSON object a line on standard output, orders on standard input."""

    def __init__(self, lines: AsyncGenerator[str, None] | None = None) -> None:
        self._room: Room | None = None
        self._lines = lines

    @contextmanager
    def shown(self, room: Room) -> Iterator[None]:
        self._room = room
        if room.hosting:
            emit("meeting", **view.invitation_facts(room.invitation, room.title, room.words))
        emit("session", me=room.session.me, meeting_id=room.session.ticket.meeting, title=room.title, badge=room.badge, words=room.words)
        self._roster()
        yield

    def _roster(self) -> None:
        assert self._room is not None
        room = self._room
        people = (*room.waiting(), *room.people(), *room.left())
        emit("roster", people=[asdict(person) for person in people], knock=room.session.state.knock, locked=room.session.state.locked)

    async def run(self) -> None:
        await trio.sleep_forever()

    def tell(self, event: events.Event) -> None:
        if not isinstance(event, events.MustWait):  # told when it was so
            emit(NAMES.get(type(event), type(event).__name__), **msgspec.to_builtins(event))

    def state(self, name: str, **facts: Any) -> None:
        emit(name, **facts)

    def say(self, text: str) -> None:
        emit("note", text=text)

    def answer(self, order: Order, text: str) -> None:
        emit("done", do=order.do, answer=text)

    def refuse(self, error: ParleyError) -> None:
        emit("refused", name=error.name, sentence=str(error).removeprefix(f"{error.name}: "))

    async def orders(self) -> AsyncGenerator[Order, None]:
        async with aclosing(self._lines or read_lines(LineParser())) as lines:
            async for line in lines:
                try:
                    order = json_order_untrusted(line)
                except EndpointError as error:
                    self.refuse(error)
                    continue
                if order is not None and order.do == "who":
                    self._roster()
                elif order is not None and order.do == "figures":
                    self._figures()
                elif order is not None:
                    yield order

    def _figures(self) -> None:
        room = self._room
        assert room is not None
        session = room.session
        emit(
            "figures",
            frames=room.presenter.frames if room.presenter else room.watcher.frames,
            bytes_sent=session.bytes_sent,
            bytes_received=session.bytes_received,
            dropped=dict(session.member.dropped),
        )


def emit(event: str, **facts: Any) -> None:
    """One line for a program."""
    click.echo(json.dumps({"event": event, **facts}, ensure_ascii=True))
    sys.stdout.flush()


def choose_face(as_json: bool, lines: AsyncGenerator[str, None] | None = None) -> Face:
    """JSON if asked for; a live terminal if there is one; else plain lines. `lines`: standard input, of which something was read already."""
    if as_json:
        return JsonFace(lines)
    console = Console(file=cast(TextIO, _Screen()), highlight=False)
    if console.is_terminal and not console.is_dumb_terminal and lines is None:
        return LiveFace(console)
    return PlainFace(lines=lines)
