"""The kinds of log entries, as one table: who signs each, who may cause it, when it is illegal, what it does.

`RULES` is what every member replays (`endpoint.state.State.apply`), and what docs/session-log.md is drawn from. Members cause entries by
asking the organizer's endpoint; that decides by policy, or by its person, and writes. So of two who claim the same at once exactly one wins,
and everywhere the same: whoever is written last.

`refuses` sees the state before the entry, `effect` after index and head have moved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from crypto.errors import CryptoError
from crypto.signing import WEAK_EXCHANGE, verify
from endpoint import log
from endpoint.log import Member
from wire.ids import Channel, Epoch, ParticipantId, Role

if TYPE_CHECKING:
    from endpoint.state import State

LABEL_ACCEPT: Final = b"parley accept 1"
LABEL_YIELD: Final = b"parley yield 1"


class Signer(StrEnum):
    """Whose key an entry bears."""

    ORGANIZER = "organizer"
    SUCCESSOR = "successor"


@dataclass(frozen=True, slots=True)
class Rule:
    """`causes`: on whose word the entry is written. `refuses`: why it is illegal, or "". `effect`: what it does; its docstring says so."""

    kind: str
    causes: tuple[str, ...]
    refuses: Callable[["State", Any], str]
    effect: Callable[["State", Any], None]
    signer: Signer = Signer.ORGANIZER


_WEAK: Final = "an exchange key with which no secret can be shared"
"""Such a member could be told nothing by an organizer to come, and what is said to all, one by one, would end at it."""


def _never(state: "State", entry: object) -> str:
    return ""


# who is here


def _refuse_open(state: "State", entry: log.Open) -> str:
    if entry.session != state.session.to_bytes(8, "big") or entry.meeting_key != state.meeting_key:
        return "the log of another session"
    if entry.organizer.signing_key != entry.meeting_key or entry.organizer.role != Role.ORGANIZER:
        return "the organizer does not hold the meeting key"
    if entry.organizer.exchange_key in WEAK_EXCHANGE:
        return _WEAK
    return "" if entry.epoch == 1 else "a session begins in epoch 1"


def _open(state: "State", entry: log.Open) -> None:
    """The organizer is the one member, and may chat by a setting of its own."""
    state.epoch = Epoch(entry.epoch)
    state.note_chat_default()
    state.enter(entry.organizer)
    state.take_chair(ParticipantId(entry.organizer.id))


def _refuse_admit(state: "State", entry: log.Admit) -> str:
    ids = [member.id for member in entry.members]
    if len(set(ids)) != len(ids) or any(i in state.ever for i in ids):
        return "a participant ID is used once"
    if not ids and not entry.others:
        return "nobody is admitted"
    if not WEAK_EXCHANGE.isdisjoint(member.exchange_key for member in entry.members):
        return _WEAK
    return _refuse_epoch_number(state, entry.epoch)


def _refuse_epoch_number(state: "State", epoch: int) -> str:
    return "" if epoch == state.epoch + 1 and epoch >> 24 == state.epoch >> 24 else "epochs follow each other"


def _admit(state: "State", entry: log.Admit) -> None:
    """They are members; everyone ratchets to the next epoch."""
    for member in entry.members:
        state.enter(member)
    state.epoch = Epoch(entry.epoch)
    state.epoch_digest = b""


def _refuse_leave(state: "State", entry: log.Leave) -> str:
    if state.organizer in entry.participants:
        return "the organizer hands over or ends"
    return _refuse_members(state, entry.participants)


def _refuse_members(state: "State", participants: list[int]) -> str:
    return "" if all(i in state.members for i in participants) and len(set(participants)) == len(participants) else "not a member"


def _leave(state: "State", entry: log.Leave) -> None:
    """They are out, their last lines cut where they say; a new key follows."""
    state.remove({ParticipantId(i) for i in entry.participants}, entry.cuts)


def _refuse_dismiss(state: "State", entry: log.Dismiss) -> str:
    return "nobody dismisses the organizer" if entry.participant == state.organizer else _refuse_members(state, [entry.participant])


def _dismiss(state: "State", entry: log.Dismiss) -> None:
    """Out at once; knocking is on; a new key follows."""
    state.remove({ParticipantId(entry.participant)}, entry.cuts)
    state.knock = True


def _refuse_member(state: "State", entry: Any) -> str:
    return _refuse_members(state, [entry.participant])


def _refuse_nobody_or_member(state: "State", entry: Any) -> str:
    return _refuse_members(state, [entry.participant]) if entry.participant else ""


def _rename(state: "State", entry: log.Rename) -> None:
    """The member has another name."""
    state.rename(ParticipantId(entry.participant), entry.name)


# who may do what


def _presenter(state: "State", entry: log.Presenter) -> None:
    """Presents from here on; control ends."""
    state.set_presenter(ParticipantId(entry.participant))


def _refuse_control(state: "State", entry: log.Control) -> str:
    if entry.participant and not state.presenter:
        return "nobody presents"
    if entry.participant and entry.participant == state.presenter:
        return "the presenter has its own hands"
    return _refuse_nobody_or_member(state, entry)


def _control(state: "State", entry: log.Control) -> None:
    """Holds mouse and keyboard of the presenter's machine."""
    state.set_control(ParticipantId(entry.participant))


def _chat(state: "State", entry: log.Chat) -> None:
    """The right to chat: of one, or of all without a setting of their own. If taken, lines beyond the cuts do not count."""
    state.set_chat(ParticipantId(entry.participant), entry.allowed, entry.cuts)


# the door


def _lock(state: "State", entry: log.Lock) -> None:
    """Nobody else comes in, or somebody may again."""
    state.locked = entry.locked


def _knock(state: "State", entry: log.Knock) -> None:
    """Newcomers wait until the organizer lets each in, or they do not."""
    state.knock = entry.required


# keys


def _epoch(state: "State", entry: log.EpochEntry) -> None:
    """The group key of that digest holds from here on."""
    state.epoch = Epoch(entry.epoch)
    state.epoch_digest = entry.digest


# the chair


def _refuse_successors(state: "State", entry: log.Successors) -> str:
    for participant, key in entry.participants:
        member = state.members.get(ParticipantId(participant))
        if member is None or participant == state.organizer or member.signing_key != key:
            return "not another member with this key"
    return "" if len(dict(entry.participants)) == len(entry.participants) else "a successor is named once"


def _successors(state: "State", entry: log.Successors) -> None:
    """Each of them may take over when nothing has been heard of the organizer for 60 s."""
    state.set_successors([ParticipantId(i) for i, _ in entry.participants])


def _refuse_hand_over(state: "State", entry: log.HandOver) -> str:
    member = state.members.get(ParticipantId(entry.participant))
    if entry.participant == state.organizer:
        return "it holds the chair already"
    if member is not None:
        if (entry.signing_key, entry.exchange_key) != (member.signing_key, member.exchange_key):
            return "not the member's keys"
    elif entry.participant in state.ever or entry.signing_key != state.organizer_key:
        return "only the organizer itself comes back as a new participant"
    elif entry.exchange_key in WEAK_EXCHANGE:
        return _WEAK
    problem = _refuse_epoch_number(state, entry.epoch)
    if problem:
        return problem
    try:
        verify(entry.signing_key, entry.accept, LABEL_ACCEPT, *accept_parts(state, entry))
    except CryptoError:
        return "it was not accepted"
    return ""


def accept_parts(state: "State", entry: log.HandOver) -> tuple[bytes, ...]:
    """What the new organizer signs: this place of this log, its own keys, the next epoch."""
    return (
        state.session.to_bytes(8, "big"),
        state.head,
        entry.participant.to_bytes(4, "big"),
        entry.signing_key,
        entry.exchange_key,
        entry.epoch.to_bytes(4, "big"),
    )


def _hand_over(state: "State", entry: log.HandOver) -> None:
    """From here on the new organizer's key alone signs; a new key follows. An organizer that comes back as a new participant takes its
    former self's place: name, the right to present, control."""
    former, new = state.organizer, ParticipantId(entry.participant)
    if new not in state.members:
        before = state.members[former]
        state.enter(Member(entry.participant, before.role, before.name, entry.signing_key, entry.exchange_key))
        state.replace(former, new)
    state.take_chair(new)
    state.contested = b""


def _refuse_take_over(state: "State", entry: log.TakeOver) -> str:
    if entry.participant not in state.successors:
        return "not a successor"
    return "" if entry.epoch == ((state.epoch >> 24) + 1) << 24 else "a take-over begins a term"


def _take_over(state: "State", entry: log.TakeOver) -> None:
    """The successor organizes in a new term; a new key follows. The former organizer is a member until it leaves."""
    former = state.organizer_key
    state.epoch, state.epoch_digest = Epoch(entry.epoch), b""
    state.take_chair(ParticipantId(entry.participant))
    state.contested, state.took_over_at = former + state.head, state.index


def _refuse_yield(state: "State", entry: log.Yield) -> str:
    if not state.contested or entry.take_over != state.contested[32:]:
        return "there is no such take-over to yield to"
    try:
        verify(state.contested[:32], entry.signature, LABEL_YIELD, state.session.to_bytes(8, "big"), entry.take_over)
    except CryptoError:
        return "the former organizer has not yielded"
    return ""


def _yield(state: "State", entry: log.Yield) -> None:
    """The take-over is settled: the former organizer has seen it and accepts it."""
    state.contested = b""


def _end(state: "State", entry: log.End) -> None:
    """Nothing is legal afterwards; every key is dropped."""
    state.ended = True


RULES: Final[dict[type, Rule]] = {
    log.Open: Rule("open", ("the organizer, once",), _refuse_open, _open),
    log.Admit: Rule("admit", ("guests whose secret matched", "the organizer, while knocking is on"), _refuse_admit, _admit),
    log.Leave: Rule("leave", ("each member for itself", "120 s without a link"), _refuse_leave, _leave),
    log.Dismiss: Rule("dismiss", ("the organizer",), _refuse_dismiss, _dismiss),
    log.Presenter: Rule("presenter", ("the organizer", "the presenter"), _refuse_nobody_or_member, _presenter),
    log.Control: Rule("control", ("the presenter",), _refuse_control, _control),
    log.Chat: Rule("chat", ("the organizer",), _refuse_nobody_or_member, _chat),
    log.Lock: Rule("lock", ("the organizer",), _never, _lock),
    log.Knock: Rule("knock", ("the organizer", "a dismissal"), _never, _knock),
    log.Rename: Rule("rename", ("each member for itself",), _refuse_member, _rename),
    log.EpochEntry: Rule("epoch", ("a leave, a dismissal, a new organizer, an hour",), lambda s, e: _refuse_epoch_number(s, e.epoch), _epoch),
    log.HandOver: Rule("hand-over", ("the organizer, to a member who accepts", "the organizer, to itself"), _refuse_hand_over, _hand_over),
    log.Successors: Rule("successors", ("the organizer",), _refuse_successors, _successors),
    log.TakeOver: Rule("take-over", ("a successor, after 60 s of silence",), _refuse_take_over, _take_over, Signer.SUCCESSOR),
    log.Yield: Rule("yield", ("the former organizer",), _refuse_yield, _yield),
    log.End: Rule("end", ("the organizer",), _never, _end),
}

CUT_CHANNELS: Final = (Channel.CHAT, Channel.FILE)
"""The public reliable streams of members, which a removal cuts."""
