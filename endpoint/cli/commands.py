"""What a person can type, and a program can ask for, during a session: one table.

hello everyone          a line of chat           {"do": "chat", "text": "hello everyone"}
/mute Ana               a command                {"do": "mute", "name": "Ana"}
/let in 7               of two words             {"do": "let-in", "name": "7"}
/whisper Ana psst       to one                   {"do": "whisper", "name": "Ana", "text": "psst"}
//shrug                 a line that begins with one slash
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, ClassVar, Final

import msgspec
import trio
from msgspec import Meta

from endpoint.chair import Chair
from endpoint.cli.keys import MAX_LINE
from endpoint.cli.room import NobodyOfThatName, Room
from endpoint.errors import EndpointError, NotAllowed
from endpoint.messages import Verb
from endpoint.present import OnAir, Presenter
from endpoint.screen.picture import ScreenError
from endpoint.session import Session
from endpoint.text import clean_line
from endpoint.words import new_password
from wire.ids import EVERYONE

ANSWER_WITHIN: Final = 3.0
"""Seconds that an answer waits for what has been set going."""


class UnknownCommand(EndpointError):
    name: ClassVar[str] = "command-unknown"
    sentence: ClassVar[str] = "There is no such command; /help lists all."


class NothingShared(EndpointError):
    name: ClassVar[str] = "nothing-shared"
    sentence: ClassVar[str] = "This side shares nothing; start with --share to have something to show."


class NothingSaid(EndpointError):
    name: ClassVar[str] = "nothing-said"
    sentence: ClassVar[str] = "Write the text behind the name: /whisper NAME TEXT."


class MalformedOrder(EndpointError):
    name: ClassVar[str] = "order-malformed"
    sentence: ClassVar[str] = 'An order is one JSON object in a line, such as {"do": "chat", "text": "hello"}.'


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done."""

    do: str
    text: Annotated[str, Meta(max_length=MAX_LINE)] = ""
    name: str = ""


class Who(Enum):
    """Whom a command names."""

    MEMBER = "member"
    WAITING = "waiting"  # to be let in


@dataclass(frozen=True, slots=True)
class Command:
    """`act` does it, and says what has come of it."""

    usage: str
    help: str
    act: Callable[[Room, Order], Awaitable[str | None] | str | None]
    host: bool = False  # the organizer's alone
    guest: bool = False  # everybody else's
    who: Who | None = None


def _presenter(room: Room) -> Presenter:
    if room.presenter is None:
        raise NothingShared
    return room.presenter


def _pause(room: Room, order: Order) -> str:
    presenter = _presenter(room)
    if presenter.on_air is OnAir.OFF:
        raise NothingShared("Your screen is not being shared.")
    presenter.pause()
    return "Paused: nothing of your screen is sent; viewers keep the last picture."


def _resume(room: Room, order: Order) -> str:
    presenter = _presenter(room)
    if presenter.on_air is OnAir.OFF:
        raise NothingShared("Your screen is not being shared.")
    presenter.resume()
    return "Your screen is sent."


def _share(room: Room, order: Order) -> str:
    _presenter(room).start()
    if room.session.state.presenter == room.session.me:
        return "Your screen is shared."
    how = "/present" if room.hosting else "/ask present"
    return f"Your screen is shared as soon as you present: {how}."


def _unshare(room: Room, order: Order) -> str:
    _presenter(room).stop()
    return "Your screen is not shared; /share begins again."


def _lend(room: Room, order: Order) -> str:
    if room.lender is None:
        raise NothingShared("Only a desktop's mouse and keyboard can be lent.")
    who = room.find(order.name)
    room.session.lend(who)
    return f"Mouse and keyboard go to {room.call(who)} as soon as the log says so; /take, or the key Pause, takes them back."


def _take(room: Room, order: Order) -> str:
    if room.lender is None or not room.session.state.control:
        raise NothingShared("Nobody has your mouse and keyboard.")
    room.lender.take_back()
    return "Mouse and keyboard are yours alone."


def _view(room: Room, order: Order) -> str:
    try:
        if room.view is None:
            raise ScreenError("no-display", "There is no display here for a window.")
        room.view()
    except ScreenError as error:
        raise NothingShared(error.sentence) from None
    return "The window shows the screen as soon as somebody else presents."


def _present(room: Room, order: Order) -> str | None:
    session = room.session
    who = room.find(order.name) if order.name else session.me
    if room.hosting:
        session.act(lambda chair, now: chair.appoint(who, now))
        return "You present now." if who == session.me else f"{room.call(who)} presents now."
    if session.state.presenter == session.me:
        session.ask(Verb.PRESENT, who)
        if who == session.me:
            return "You present already."
        return f"The organizer's program is asked to let {room.call(who)} present."
    if who != session.me:
        raise NotAllowed("The organizer appoints, and the presenter passes it on; /ask-present asks for yourself.")
    return _asked(Verb.ASK_PRESENT, "to let you present")(room, order)


def _nobody(room: Room, order: Order) -> str:
    if room.hosting:
        room.session.act(lambda chair, now: chair.appoint(EVERYONE, now))
        return "Nobody presents now."
    room.session.ask(Verb.PRESENT)
    return "The organizer's program is told that you do not present any more."


def _chat_right(allowed: bool) -> Callable[[Room, Order], str]:
    def act(room: Room, order: Order) -> str:
        who = EVERYONE if order.name.casefold() in ("all", "everyone") else room.find(order.name)
        room.session.act(lambda chair, now: chair.allow_chat(who, allowed, now))
        return f"{room.call(who)} may {'chat' if allowed else 'not chat any more'}: every program here drops what is said against it."

    return act


async def _dismiss(room: Room, order: Order) -> str:
    who = room.find(order.name)
    name, before = room.call(who), room.session.state.epoch
    room.session.act(lambda chair, now: chair.dismiss(who, now))
    with trio.move_on_after(ANSWER_WITHIN):
        await room.session.until(lambda: room.session.state.epoch > before or room.session.over)
    key = f"and epoch {room.session.state.epoch} has a new key" if room.session.state.epoch > before else "and the new key is on its way"
    return f"{name} is out, {key}. Newcomers wait until you let them in, or until you set another password (/password)."


def _lock(room: Room, order: Order) -> str:
    room.session.act(lambda chair, now: chair.lock(True, now))
    return "Locked: nobody else comes in."


def _unlock(room: Room, order: Order) -> str:
    def act(chair: Chair, now: float) -> None:
        chair.lock(False, now)
        chair.knock(False, now)

    room.session.act(act)
    return "Open: whoever has the password comes in."


def _knock(room: Room, order: Order) -> str:
    wanted = order.name.casefold() not in ("off", "no", "false")
    room.session.act(lambda chair, now: chair.knock(wanted, now))
    return "Newcomers wait until you let each in." if wanted else "Newcomers come in by themselves."


def _let_in(room: Room, order: Order) -> str:
    if order.name.casefold() in ("all", "everyone"):
        who = [person.participant for person in room.waiting()]
        if not who:
            raise NobodyOfThatName("Nobody waits.")
    else:
        who = [room.find(order.name, waiting=True)]

    def act(chair: Chair, now: float) -> None:
        for guest in who:
            chair.let_in(guest, now)

    room.session.act(act)
    return f"{len(who)} let in." if len(who) != 1 else "Let in."


def _turn_away(room: Room, order: Order) -> str:
    who = room.find(order.name, waiting=True)
    room.session.act(lambda chair, now: chair.turn_away(who, now))
    return "Turned away."


async def _password(room: Room, order: Order) -> str:
    if not room.hosting:
        raise NotAllowed("Only the organizer sets the password.")
    chosen = order.name or order.text or new_password()
    await room.session.change_password(chosen)
    room.change_password(chosen)
    return f"From now on newcomers need this password: {chosen}"


def _rename(room: Room, order: Order) -> str:
    name = clean_line(order.name)
    if not name:
        raise NotAllowed("Write the name behind it.")
    if room.hosting:
        room.session.act(lambda chair, now: chair.rename(room.session.me, name, now))
        return "Renamed."
    room.session.ask(Verb.RENAME, text=name)
    return "The organizer's program is asked to list you so."


def _hand_over(room: Room, order: Order) -> str:
    if not order.name:
        room.session.act(lambda chair, now: chair.take_back_offer())
        return "The offer is taken back."
    who = room.find(order.name)
    room.session.act(lambda chair, now: chair.hand_over(who, now))
    return f"{room.call(who)} is asked to become the organizer. It is done when that is accepted, and cannot be undone."


def _successors(room: Room, order: Order) -> str:
    who = room.finds(order.name)
    room.session.act(lambda chair, now: chair.name_successors(who, now))
    names = ", ".join(map(room.call, who))
    return f"After 60 s without you, {names} may take over." if who else "Nobody may take over."


async def _until_organizer(session: Session, otherwise: str) -> str:
    """What came of asking for the chair: a command behind it on the same pipe is the organizer's."""
    with trio.move_on_after(ANSWER_WITHIN):
        await session.until(lambda: session.member.organizes or session.over)
    return "You are the organizer." if session.member.organizes else otherwise


async def _accept(room: Room, order: Order) -> str:
    room.session.accept_chair()
    return await _until_organizer(room.session, "Accepted; you are the organizer as soon as the log says so.")


def _decline(room: Room, order: Order) -> str:
    room.session.decline_chair()
    return "Declined."


async def _take_over(room: Room, order: Order) -> str:
    room.session.take_over()
    return await _until_organizer(room.session, "Claimed; the relay has not confirmed it yet.")


async def _whisper(room: Room, order: Order) -> None:
    name, text = order.name, order.text
    if not text:  # typed: a whole name of several words goes before the first word
        typed = f"{order.name} ".casefold()
        whole = [person.name for person in room.people() if typed.startswith(f"{person.name} ".casefold())]
        name = max(whole, key=len, default=order.name.partition(" ")[0])
        text = order.name[len(name) :].strip()
    who = room.find(name)
    if not text:
        raise NothingSaid
    await room.session.whisper(who, text)


def _asked(verb: Verb, what: str) -> Callable[[Room, Order], str]:
    def act(room: Room, order: Order) -> str:
        room.session.ask(verb)
        return f"Asked {what}."

    return act


def _finish(room: Room, order: Order) -> None:
    room.finish.set()


COMMANDS: Final[dict[str, Command]] = {
    "pause": Command("/pause", "stop sending the screen; viewers keep the last picture", _pause),
    "resume": Command("/resume", "go on sending it", _resume),
    "share": Command("/share", "begin to share your screen, when you present", _share),
    "unshare": Command("/unshare", "end the share; you stay the presenter", _unshare),
    "lend": Command("/lend NAME", "lend your mouse and keyboard; the key Pause takes them back at once", _lend, who=Who.MEMBER),
    "take": Command("/take", "take mouse and keyboard back", _take),
    "view": Command("/view", "open the window that shows the screen", _view),
    "whisper": Command("/whisper NAME TEXT", "a line to one person, sealed for the two of you", _whisper, who=Who.MEMBER),
    "raise-hand": Command("/raise hand", "tell the organizer", _asked(Verb.RAISE_HAND, "the organizer to notice you"), guest=True),
    "ask-present": Command("/ask present", "ask the organizer to let you present", _asked(Verb.ASK_PRESENT, "to let you present"), guest=True),
    "ask-control": Command("/ask control", "ask for the presenter's mouse and keyboard", _asked(Verb.ASK_CONTROL, "for control"), guest=True),
    "rename": Command("/rename NAME", "be listed under another name", _rename),
    "present": Command("/present [NAME]", "who presents from now on; without a name you", _present, who=Who.MEMBER),
    "stop": Command("/stop", "nobody presents", _nobody),
    "accept": Command("/accept", "become the organizer, as was offered to you", _accept, guest=True),
    "decline": Command("/decline", "do not", _decline, guest=True),
    "take-over": Command("/take over", "organize, as a successor, after 60 s without the organizer", _take_over, guest=True),
    "mute": Command("/mute NAME", "take the right to chat; of everyone: /mute all", _chat_right(False), host=True, who=Who.MEMBER),
    "unmute": Command("/unmute NAME", "give it back", _chat_right(True), host=True, who=Who.MEMBER),
    "dismiss": Command("/dismiss NAME", "remove somebody for good; the keys change", _dismiss, host=True, who=Who.MEMBER),
    "let-in": Command("/let in NAME", "let in whoever knocks; everyone: /let in all", _let_in, host=True, who=Who.WAITING),
    "turn-away": Command("/turn away NAME", "do not", _turn_away, host=True, who=Who.WAITING),
    "lock": Command("/lock", "let nobody else in", _lock, host=True),
    "unlock": Command("/unlock", "open the door again, after a dismissal too", _unlock, host=True),
    "knock": Command("/knock [off]", "newcomers wait until you let them in", _knock, host=True),
    "password": Command("/password [NEW]", "another password for newcomers; knocking ends", _password, host=True),
    "hand-over": Command("/hand over to NAME", "offer your role, for good; no name: take it back", _hand_over, host=True, who=Who.MEMBER),
    "successors": Command("/successors NAME, …", "who may take over after 60 s without you", _successors, host=True, who=Who.MEMBER),
    "end": Command("/end", "end the meeting for everyone", _finish, host=True),
    "leave": Command("/leave", "leave the meeting", _finish, guest=True),
    "chat": Command("TEXT", "a line of chat to all", lambda room, order: room.session.chat(order.text)),
}
"""/who, /link, /help only show something; they belong to the face that shows it."""


async def obey(room: Room, order: Order) -> str | None:
    """Do it, and say what has come of it; None if that shows by itself. Raises an EndpointError that says why not."""
    command = COMMANDS.get(order.do)
    if command is None:
        raise UnknownCommand
    if command.host and not room.hosting:
        raise NotAllowed("Only the organizer may do that.")
    if order.do == "leave" and room.hosting:
        raise NotAllowed("The organizer does not leave: /hand over to somebody first, or /end the meeting for everyone.")
    if command.guest and room.hosting:
        raise NotAllowed("You are the organizer: you need not ask.")
    done = command.act(room, order)
    return done if isinstance(done, str) or done is None else await done


def typed_order(line: str) -> Order | None:
    """What a typed line means; None for an empty one. Commands of two words are typed as such: /let in 7, /hand over to ana."""
    line = line.strip()
    if not line.startswith("/") or line.startswith("//"):
        text = line.removeprefix("/") if line.startswith("//") else line
        return Order("chat", text) if text else None
    verb, _, rest = line[1:].partition(" ")
    second, _, beyond = rest.strip().partition(" ")
    if f"{verb}-{second}".casefold() in COMMANDS:
        verb, rest = f"{verb}-{second}", beyond
    verb, rest = verb.casefold(), rest.strip()
    if verb == "hand-over":
        rest = rest.removeprefix("to ").strip()
    return Order(verb, name=rest) if verb != "chat" else Order("chat", rest)


def completions(room: Room, line: str) -> list[str]:
    """Whole lines that this one may become."""
    if not line.startswith("/") or line.startswith("//"):
        return []
    found: list[str] = []
    for verb, command in COMMANDS.items():
        if verb == "chat" or (command.host and not room.hosting) or (command.guest and room.hosting):
            continue
        typed = "/" + verb.replace("-", " ") + (" to" if verb == "hand-over" else "")
        if typed.startswith(line.rstrip()) and len(line) <= len(typed):
            found.append(typed + (" " if command.who else ""))
        elif command.who and line.startswith(typed + " "):
            before, _, begun = line[len(typed) + 1 :].rpartition(", ")
            begun = begun.casefold()
            people = room.waiting() if command.who is Who.WAITING else room.people()
            lead = typed + " " + (before + ", " if before else "")
            found += [lead + person.name for person in people if not person.me and person.name.casefold().startswith(begun)]
    return found or [word for word in ("/who", "/link", "/help") if word.startswith(line)]


def json_order_untrusted(line: str) -> Order | None:
    """An order in a line of JSON; None for an empty one. Raises MalformedOrder."""
    if not line.strip():
        return None
    try:
        return msgspec.json.decode(line, type=Order)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise MalformedOrder from None
