"""What a person can type, and a program can ask for, during a session: one table.

hello everyone          a line of chat           {"do": "chat", "text": "hello everyone"}
/mute Ana               a command                {"do": "mute", "name": "Ana"}
//shrug                 a line that begins with one slash
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from endpoint.chair import Chair
from endpoint.cli.keys import MAX_LINE
from endpoint.cli.room import Room
from endpoint.errors import EndpointError, NotAllowed
from endpoint.screen.picture import ScreenError
from wire.ids import EVERYONE


class UnknownCommand(EndpointError):
    name: ClassVar[str] = "command-unknown"
    sentence: ClassVar[str] = "There is no such command; /help lists all."


class NothingShared(EndpointError):
    name: ClassVar[str] = "nothing-shared"
    sentence: ClassVar[str] = "This side shares nothing; start with --share to have something to show."


class MalformedOrder(EndpointError):
    name: ClassVar[str] = "order-malformed"
    sentence: ClassVar[str] = 'An order is one JSON object in a line, such as {"do": "chat", "text": "hello"}.'


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done."""

    do: str
    text: Annotated[str, Meta(max_length=MAX_LINE)] = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    usage: str
    help: str
    act: Callable[[Room, Order], Awaitable[object] | None]
    host: bool = False  # the organizer's alone


def _pause(room: Room, order: Order) -> None:
    if room.presenter is None:
        raise NothingShared
    room.presenter.pause()


def _resume(room: Room, order: Order) -> None:
    if room.presenter is None:
        raise NothingShared
    room.presenter.resume()


def _share(room: Room, order: Order) -> None:
    if room.presenter is None:
        raise NothingShared
    room.presenter.start()


def _unshare(room: Room, order: Order) -> None:
    if room.presenter is None:
        raise NothingShared
    room.presenter.stop()


def _lend(room: Room, order: Order) -> None:
    if room.lender is None:
        raise NothingShared("Only a desktop's mouse and keyboard can be lent.")
    room.session.lend(room.find(order.name))


def _take(room: Room, order: Order) -> None:
    if room.lender is not None:
        room.lender.take_back()


def _view(room: Room, order: Order) -> None:
    if room.view is not None:
        try:
            room.view()
        except ScreenError as error:
            raise NothingShared(error.sentence) from None


def _present(room: Room, order: Order) -> None:
    who = room.find(order.name) if order.name else room.session.me
    room.session.act(lambda organizer, now: organizer.appoint(who, now))


def _nobody(room: Room, order: Order) -> None:
    room.session.act(lambda organizer, now: organizer.appoint(EVERYONE, now))


def _chat_right(allowed: bool) -> Callable[[Room, Order], None]:
    def act(room: Room, order: Order) -> None:
        who = room.find(order.name)
        room.session.act(lambda organizer, now: organizer.allow_chat(who, allowed, now))

    return act


def _dismiss(room: Room, order: Order) -> None:
    who = room.find(order.name)
    room.session.act(lambda organizer, now: organizer.dismiss(who, now))


def _lock(room: Room, order: Order) -> None:
    room.session.act(lambda organizer, now: organizer.lock(True, now))


def _unlock(room: Room, order: Order) -> None:
    def act(organizer: Chair, now: float) -> None:
        organizer.lock(False, now)
        organizer.knock(False, now)

    room.session.act(act)


def _finish(room: Room, order: Order) -> None:
    room.finish.set()


COMMANDS: Final[dict[str, Command]] = {
    "pause": Command("/pause", "stop sending the screen; viewers keep the last picture", _pause),
    "resume": Command("/resume", "go on sending it", _resume),
    "share": Command("/share", "begin to share your screen, when you present", _share),
    "unshare": Command("/unshare", "end the share; you stay the presenter", _unshare),
    "lend": Command("/lend NAME", "lend your mouse and keyboard; the key Pause takes them back at once", _lend),
    "take": Command("/take", "take mouse and keyboard back", _take),
    "view": Command("/view", "open the window that shows the screen", _view),
    "present": Command("/present [NAME]", "who presents from now on; without a name you", _present, host=True),
    "stop": Command("/stop", "nobody presents", _nobody, host=True),
    "mute": Command("/mute NAME", "take the right to chat", _chat_right(False), host=True),
    "unmute": Command("/unmute NAME", "give it back", _chat_right(True), host=True),
    "dismiss": Command("/dismiss NAME", "remove somebody for good; the keys change", _dismiss, host=True),
    "lock": Command("/lock", "let nobody else in", _lock, host=True),
    "unlock": Command("/unlock", "open the door again, after a dismissal too", _unlock, host=True),
    "end": Command("/end", "end the meeting for everyone", _finish, host=True),
    "leave": Command("/leave", "leave the meeting", _finish),
    "chat": Command("TEXT", "a line of chat to all", lambda room, order: room.session.chat(order.text)),
}
"""/who, /link, /help only show something; they belong to the face that shows it."""


async def obey(room: Room, order: Order) -> None:
    """Do it. Raises an EndpointError that says why not."""
    command = COMMANDS.get(order.do)
    if command is None:
        raise UnknownCommand
    if command.host and not room.hosting:
        raise NotAllowed("Only the organizer may do that.")
    if order.do == "leave" and room.hosting:
        raise NotAllowed("The organizer does not leave; /end ends the meeting for everyone.")
    doing = command.act(room, order)
    if doing is not None:
        await doing


def typed_order(line: str) -> Order | None:
    """What a typed line means; None for an empty one."""
    line = line.strip()
    if line.startswith("/") and not line.startswith("//"):
        verb, _, name = line[1:].partition(" ")
        return Order(verb.casefold(), name=name.strip()) if verb != "chat" else Order("chat", name.strip())
    text = line.removeprefix("/") if line.startswith("//") else line
    return Order("chat", text) if text else None


def json_order_untrusted(line: str) -> Order | None:
    """An order in a line of JSON; None for an empty one. Raises MalformedOrder."""
    if not line.strip():
        return None
    try:
        return msgspec.json.decode(line, type=Order)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise MalformedOrder from None
