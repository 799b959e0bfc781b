"""A session on the command line, from the moment this side is in until it ends. For hosts and guests alike.

One nursery: sharing (when the log names us), watching (when it names another), the PNG, the face, what is typed, and the events, whose end
ends all. A screen that can no longer be shared is told; the meeting goes on.
"""

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import trio

from endpoint import events
from endpoint.cli.commands import obey
from endpoint.cli.faces import Face, JsonFace
from endpoint.cli.panes import Panes
from endpoint.cli.room import Room
from endpoint.errors import EndpointError
from endpoint.invitation import Invitation
from endpoint.present import Presenter
from endpoint.screen.picture import ScreenError
from endpoint.screen.source import Source
from endpoint.screen.viewer import PngViewer
from endpoint.screen.x11 import X11Source
from endpoint.screen.x11_pointer import X11Pointer
from endpoint.session import Session
from endpoint.watch import Watcher
from wire.errors import CloseReason
from wire.ids import ParticipantId

LOOK_EVERY = 0.1
"""Seconds between two looks at what has no event of its own."""
_ORDERLY = frozenset(("left", CloseReason.LEFT.value, CloseReason.ENDED.value))


class Removed(EndpointError):
    """We are out, and not by our own will. Carries the session's name and sentence for it."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.name = reason  # type: ignore[misc]  # the session names it


async def attend(
    session: Session,
    face: Face,
    invitation: Invitation,
    finish: trio.Event,
    *,
    source: Source | None,
    picture: Path,
    keep_password: Callable[[str], None] | None = None,
) -> None:
    """Until the session ends, or `finish` is set: then a guest leaves and a host ends it. `keep_password` is told of another password.

    Raises Removed.
    """

    def report(trouble: ScreenError) -> None:
        face.say(f"{trouble.name}: {trouble.sentence}")

    viewer = PngViewer(picture, report=report)
    room = Room(session, invitation, Watcher(session, viewer.show), viewer, picture, finish)
    if keep_password is not None:
        room.password_changed = keep_password
    if source is not None:
        pointer = X11Pointer(source) if isinstance(source, X11Source) else None
        room.presenter = Presenter(session, source, pointer=pointer, started=room.hosting, report=report)
        room.source = source
    panes = Panes(room, face.say, windows=not isinstance(face, JsonFace))
    with face.shown(room):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.watcher.run)
            nursery.start_soon(viewer.run)
            nursery.start_soon(panes.run)
            nursery.start_soon(face.run)
            nursery.start_soon(_look, room, face)
            nursery.start_soon(_follow_orders, room, face)
            if source is not None:
                nursery.start_soon(_share, room, face)
            if room.hosting and source is not None:
                session.act(lambda organizer, now: organizer.appoint(session.me, now))
            nursery.start_soon(_finish_when_wanted, room)
            await _hear(room, face)
            await panes.farewell()
            nursery.cancel_scope.cancel()
        await viewer.finish()  # what the watcher's thread has drawn meanwhile


async def _hear(room: Room, face: Face) -> None:
    """Tell what happens, until the session is over."""
    async for event in room.session.events():
        face.tell(event)
        if isinstance(event, events.SessionEnded):
            return
        if isinstance(event, events.Removed):
            if event.reason not in _ORDERLY:
                raise Removed(event.reason, event.sentence)
            return


async def _share(room: Room, face: Face) -> None:
    """Share whenever we present; after a failure when our person wants to try again."""
    session, presenter = room.session, room.presenter
    assert presenter is not None
    while not session.over:
        try:
            await presenter.run()
        except ScreenError as error:
            face.say(f"{error.name}: {error.sentence} The meeting goes on without it; /share tries again.")
            if session.state.presenter == session.me and room.hosting and not session.over:
                session.act(lambda organizer, now: organizer.appoint(ParticipantId(0), now))
            await presenter.until(lambda: presenter.started)


async def _look(room: Room, face: Face) -> None:
    """Tell the face what has changed and is no event of the session."""
    on_air = showing = None
    written = 0
    while True:
        if room.presenter is not None and room.on_air is not on_air:
            on_air = room.on_air
            face.state("on-air", state=on_air.value)
        if room.showing != showing:
            showing = room.showing
            face.state("watching", state=showing)
        if room.viewer.written != written:
            written = room.viewer.written
            face.state("picture", path=str(room.picture), written=written)
        await trio.sleep(LOOK_EVERY)


async def _follow_orders(room: Room, face: Face) -> None:
    async with aclosing(face.orders()) as orders:
        async for order in orders:
            try:
                answer = await obey(room, order)
                if answer:
                    face.answer(order, answer)
            except EndpointError as error:
                face.refuse(error)


async def _finish_when_wanted(room: Room) -> None:
    """The end of the session ends its events, and so everything here."""
    await room.finish.wait()
    if room.hosting:
        await room.session.end()
    else:
        await room.session.leave()
