"""One member of the demo as a process: `python -m endpoint.demo.member`, its orders as JSON lines on standard input.

first line        {"role": "host" | "join", "site", "ca", …}          what this member is; secrets come this way, never by argv
then              {"do": "chat", "text"} · {"do": "picture", "path"} · {"do": "trace"} · {"do": "lend", "name"} · {"do": "hands"} · …
standard output   one JSON object a line: {"event": …, "at": seconds of CLOCK_MONOTONIC}
"""

import dataclasses
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import trio

from crypto.errors import CryptoError
from crypto.signing import SigningKey
from crypto.srp import make_verifier
from endpoint.demo.desktop import TERMINAL_AREA
from endpoint.events import ChatReceived, ControlChanged, Dropped, Event, JoinRefused, MemberJoined, MemberLeft, Removed, SessionEnded
from endpoint.guest import Guest
from endpoint.hands import InputEvent
from endpoint.journal import Saved
from endpoint.manager_api import ManagerApi
from endpoint.organizer import Organizer
from endpoint.present import Presenter
from endpoint.remote_control import Borrower, Lender
from endpoint.screen.picture import Picture, Rect, ScreenError
from endpoint.screen.x11 import X11Source
from endpoint.screen.x11_pointer import X11Pointer
from endpoint.screen.x11_touch import X11Touch
from endpoint.session import Session
from endpoint.ticket import Ticket
from endpoint.watch import Watcher
from net.process import configure_logging
from net.tls import client_context
from wire.errors import ParleyError
from wire.ids import Channel, MeetingId, ParticipantId

_MAX_LINE: Final = 65_536


def say(event: str, **more: object) -> None:
    sys.stdout.write(msgspec.json.encode({"event": event, "at": time.monotonic(), **more}).decode() + "\n")
    sys.stdout.flush()


async def orders() -> AsyncIterator[dict[str, Any]]:
    """Standard input, line by line."""
    pending = b""
    async with trio.lowlevel.FdStream(0) as stdin:
        async for part in stdin:
            pending += part
            *lines, pending = pending.split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line)
            if len(pending) > _MAX_LINE:
                return


def prefer(ticket: Ticket, node: str | None, way: tuple[str, int] | None = None) -> Ticket:
    """The ticket with this relay first. way: an address that leads to it, and is to be used alone."""
    first, *others = sorted(ticket.relays, key=lambda relay: relay.node != node)
    if way is not None:
        first = dataclasses.replace(first, addresses=(way,))
    return dataclasses.replace(ticket, relays=(first, *others))


class Reporter:
    """Tells the parent what happens."""

    def __init__(self, session: Session) -> None:
        self.trace = False
        session.listen(self.heard)

    def heard(self, event: Event) -> None:
        match event:
            case ChatReceived():
                say("chat", name=event.name, text=event.text)
            case MemberJoined() | MemberLeft():
                say("roster", change=type(event).__name__, name=event.name)
            case JoinRefused():
                say("join-refused", reason=event.reason)
            case Dropped():
                say("dropped", name=event.name)
            case SessionEnded():
                say("ended")
            case ControlChanged():
                say("control", name=event.name)
            case Removed():
                say("removed", reason=event.reason)
            case _:
                pass

    def drawn(self, picture: Picture, rects: Sequence[Rect]) -> None:
        if self.trace:
            x, y, width, height = TERMINAL_AREA
            if any(r.x < x + width and r.x + r.width > x and r.y < y + height and r.y + r.height > y for r in rects):
                say("pixel")


async def host(plan: dict[str, Any], lines: AsyncIterator[dict[str, Any]]) -> None:
    key = SigningKey.from_seed(bytes.fromhex(plan["seed"]))
    async with ManagerApi.connect(plan["site"], plan["ca"], plan["key"]) as manager:
        ticket = prefer(await manager.open(MeetingId(plan["meeting"])), plan.get("node"), plan.get("way"))
    verifier = await trio.to_thread.run_sync(make_verifier, ticket.session, ticket.secret, plan["password"])
    organizer = Organizer(ticket, Saved.fresh(ticket.session, key, verifier), trio.current_time(), name=plan["name"])
    async with Session.open(organizer, ticket, client_context(plan["ca"], None)) as session, trio.open_nursery() as nursery:
        Reporter(session)
        source = X11Source(plan["display"], excluded=plan.get("excluded", ()))
        presenter = Presenter(session, source, pointer=X11Pointer(source))
        lender = Lender(session, presenter, X11Touch(plan["display"]))
        nursery.start_soon(presenter.run)
        nursery.start_soon(lender.run)
        await session.until(lambda: session.node != "")
        session.act(lambda o, now: o.appoint(o.me, now))
        say("open", node=session.node)
        async for order in lines:
            match order["do"]:
                case "chat":
                    await session.chat(order["text"])
                case "picture":
                    assert presenter.picture is not None
                    np.save(order["path"], presenter.picture)
                    say("picture", frames=presenter.frames, bytes=presenter.bytes)
                case "lend":
                    session.lend(next((i for i in session.state.members if session.member.name(i) == order["name"]), ParticipantId(0)))
                    say("lent", to=lender.holder)
                case "pause":
                    presenter.pause()
                case "resume":
                    presenter.resume()
                case "hands":
                    say("hands", done=lender.done, dropped=dict(lender.dropped), holder=lender.holder)
                case "figures":
                    sent = sum(session.member.channels.last(channel) + 1 for channel in (Channel.SCREEN, Channel.CURSOR, Channel.SNAPSHOT))
                    say("figures", frames=presenter.frames, skipped=presenter.skipped, packets=sent, bytes=session.bytes_sent)
                case "cost":
                    say("cost", admission_cpu=session.admission_cpu, judged=organizer.chair.lobby.reception.judged)
                case "end":
                    await session.end()
                    break
        nursery.cancel_scope.cancel()


async def join(plan: dict[str, Any], lines: AsyncIterator[dict[str, Any]]) -> None:
    began = time.monotonic()
    async with ManagerApi.connect(plan["site"], plan["ca"]) as manager:
        ticket = prefer(await manager.ticket(MeetingId(plan["meeting"]), plan["invite"], patience=20.0), plan.get("node"))
    guest = Guest(ticket, plan["password"], plan["name"], expected=plan["expected"])
    async with Session.open(guest, ticket, client_context(plan["ca"], None)) as session, trio.open_nursery() as nursery:
        reporter = Reporter(session)
        watcher = Watcher(session, reporter.drawn)
        borrower = Borrower(session, watcher)
        nursery.start_soon(watcher.run)
        nursery.start_soon(borrower.run)
        await session.until_joined()
        say("joined", node=session.node, ms=1000 * (time.monotonic() - began))
        await session.until(lambda: watcher.first_whole_at is not None or session.over)
        say("whole", ms=1000 * (time.monotonic() - began))
        async for order in lines:
            match order["do"]:
                case "chat":
                    await session.chat(order["text"])
                case "trace":
                    reporter.trace = bool(order["on"])
                    say("trace")
                case "picture":
                    np.save(Path(order["path"]), watcher.picture)
                    say("picture", frames=watcher.frames)
                case "figures":
                    say("figures", frames=watcher.frames, bytes=session.bytes_received, refused=watcher.refused)
                case "hands":
                    for item in order["events"]:
                        borrower.do(msgspec.convert(item, InputEvent))
                    say("handed", active=borrower.active)
                case "leave":
                    break
        nursery.cancel_scope.cancel()


async def main() -> None:
    lines = orders()
    plan = await anext(lines)
    try:
        await (host if plan["role"] == "host" else join)(plan, lines)
    except* (ParleyError, CryptoError, ScreenError) as group:
        for error in group.exceptions:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            say("refused", name=error.name, sentence=error.sentence)
        sys.exit(1)


if __name__ == "__main__":
    configure_logging(json=True)
    trio.run(main)
