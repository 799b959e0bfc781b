"""What the session log means: who is here, who organizes, who presents, who may chat, which epoch. Sans-IO, the same at every member.

`RULES` is one table: for each kind of entry, who may have written it, what must hold, what it does. `State.apply` checks an entry's place
in the chain and its rule before anything changes, so a refused entry leaves the state as it was.

Rights are asked *at an index*: a packet names the log index that its sender had applied, and counts if its sender had the right there
and, where a later entry ended that right, if its counter is within that entry's cut. So all clients end with the same chat, whatever
arrived when.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from endpoint import log
from endpoint.errors import BrokenChain, IllegalEntry, MalformedEntry
from endpoint.log import Cut, Member, SignedEntry
from wire.ids import EVERYONE, UNICAST_EPOCH, Channel, Epoch, ParticipantId, Role, SessionId

NOBODY: Final = EVERYONE
"""Who presents, or holds the controls, when nobody does."""


@dataclass(frozen=True, slots=True)
class Change:
    """From `index` on, `value` holds."""

    index: int
    value: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """At `index` the right to send on a stream ended; counters up to `cut` still count."""

    index: int
    cut: int


Since = tuple[log.Id, log.U32, log.U32]
"""participant, the index of its admission, the index from which on its right to chat has held unbroken (its admission, if it was never
taken; of no meaning while it is)."""


class Snapshot(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The state as it travels to a newcomer (docs/protocol.md, "Log snapshot"). Of earlier history it holds no more than `since`: a packet
    that was sealed before the snapshot and arrives after it counts at the newcomer exactly if it counts at the others."""

    index: log.U32
    head: log.Hash
    meeting_key: log.PublicKey
    organizer: log.Id
    members: Annotated[list[Member], Meta(max_length=log.MAX_MEMBERS)]
    since: Annotated[list[Since], Meta(max_length=log.MAX_MEMBERS)]  # one for each member
    ever: Annotated[list[log.Id], Meta(max_length=100_000)]  # all IDs ever admitted that are not members: none comes twice
    presenter: log.U32
    control: log.U32
    chat_default: bool
    chat: Annotated[list[tuple[log.Id, bool]], Meta(max_length=log.MAX_MEMBERS)]
    locked: bool
    knock: bool
    epoch: log.U32
    epoch_digest: Annotated[bytes, Meta(max_length=32)]
    successors: Annotated[list[log.Id], Meta(max_length=16)]


@dataclass(slots=True)
class State:
    """One member's view. Changed by `apply` alone."""

    session: SessionId
    meeting_key: bytes
    index: int = -1
    head: bytes = b""
    organizer: ParticipantId = NOBODY
    members: dict[ParticipantId, Member] = field(default_factory=dict)
    departed: dict[ParticipantId, Member] = field(default_factory=dict)  # their last packets may still be on the way
    ever: set[ParticipantId] = field(default_factory=set)
    presenter: ParticipantId = NOBODY
    control: ParticipantId = NOBODY
    control_since: int = -1  # the index of its grant: input that names an earlier one is of an older grant
    chat_default: bool = True
    chat: dict[ParticipantId, bool] = field(default_factory=dict)
    locked: bool = False
    knock: bool = False
    epoch: Epoch = UNICAST_EPOCH
    epoch_digest: bytes = b""  # of the group key that the last EpochEntry committed; empty after a ratchet
    successors: list[ParticipantId] = field(default_factory=list)
    ended: bool = False
    first_index: int = 0  # history begins here: a newcomer's snapshot
    heads: list[bytes] = field(default_factory=list, repr=False)  # from first_index on
    _presenters: list[Change] = field(default_factory=list, repr=False)
    _chat_default: list[Change] = field(default_factory=list, repr=False)
    _chat: dict[ParticipantId, list[Change]] = field(default_factory=dict, repr=False)
    _present: dict[ParticipantId, int] = field(default_factory=dict, repr=False)  # since which index
    _chat_since: dict[ParticipantId, int] = field(default_factory=dict, repr=False)  # unbroken since which index
    _before: dict[ParticipantId, int] = field(default_factory=dict, repr=False)  # the same, when a newcomer's snapshot was made
    _gone: dict[ParticipantId, int] = field(default_factory=dict, repr=False)  # from which index on
    _ended: dict[tuple[ParticipantId, int], list[Ended]] = field(default_factory=dict, repr=False)

    @classmethod
    def genesis(cls, session: SessionId, meeting_key: bytes) -> "State":
        return cls(session, meeting_key, head=log.genesis(session))

    @property
    def organizer_key(self) -> bytes:
        """Ed25519: whose signature the next entry must bear."""
        member = self.members.get(self.organizer)
        return member.signing_key if member else self.meeting_key

    def known(self, participant: ParticipantId) -> Member | None:
        """A member, or one that was."""
        return self.members.get(participant) or self.departed.get(participant)

    def head_at(self, index: int) -> bytes | None:
        """The hash of entry `index`; None if it is before this member's history or not here yet."""
        if self.first_index <= index <= self.index:
            return self.heads[index - self.first_index]
        return None

    def apply(self, signed: SignedEntry) -> None:
        """Take the next entry. Its signature has been checked (`log.parse_log_untrusted` with `organizer_key`).

        Raises `BrokenChain` or `IllegalEntry`; then nothing has changed.
        """
        entry = signed.entry
        if entry.index != self.index + 1 or entry.previous != self.head:
            raise BrokenChain(f"entry {entry.index} does not follow {self.index}")
        problem = self.refuses(signed)
        if problem:
            raise IllegalEntry(problem)
        self.index = entry.index
        self.head = signed.hash
        self.heads.append(self.head)
        RULES[type(entry.fields)].effect(self, entry.fields)

    def refuses(self, signed: SignedEntry) -> str:
        """Why the next entry would be illegal; "" if it is not."""
        entry = signed.entry
        if self.ended:
            return "the session has ended"
        rule = RULES.get(type(entry.fields))
        if rule is None or (entry.index == 0) != isinstance(entry.fields, log.Open):
            return f"{type(entry.fields).__name__} is not legal here"
        return rule.refuses(self, entry.fields)

    def may_send(self, sender: ParticipantId, channel: int, index: int, counter: int) -> bool:
        """Whether a packet counts: its sender's right at `index`, and the cuts since."""
        at = max(index, self.first_index)
        since = self._present.get(sender)
        if since is None or index < since or at >= self._gone.get(sender, at + 1):
            return False
        if channel == Channel.CHAT:
            if index < self.first_index and index < self._before.get(sender, index):
                return False
            held = bool(_value_at(self._chat.get(sender, []), at, _value_at(self._chat_default, at, self.chat_default)))
        elif channel in (Channel.SCREEN, Channel.CURSOR, Channel.SNAPSHOT):
            # pixels of somebody who presents no longer are of no use, whatever it knew when it sent them
            held = sender == self.presenter == _value_at(self._presenters, at, NOBODY)
        elif channel == Channel.LOG:
            held = sender == self.organizer
        elif channel == Channel.INPUT:
            held = sender == self.control and index >= self.control_since
        else:
            held = True
        return held and all(counter <= ended.cut for ended in self._ended.get((sender, channel), ()) if ended.index > index)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            index=self.index,
            head=self.head,
            meeting_key=self.meeting_key,
            organizer=self.organizer,
            members=list(self.members.values()),
            since=[(i, self._present[i], self._chat_since[i]) for i in self.members],
            ever=sorted(self.ever - self.members.keys()),
            presenter=self.presenter,
            control=self.control,
            chat_default=self.chat_default,
            chat=sorted(self.chat.items()),
            locked=self.locked,
            knock=self.knock,
            epoch=self.epoch,
            epoch_digest=self.epoch_digest,
            successors=list(self.successors),
        )

    @classmethod
    def from_snapshot(cls, session: SessionId, meeting_key: bytes, snapshot: Snapshot) -> "State":
        """A newcomer's state. The snapshot's signature has been checked against the organizer that the handshake proved.

        Raises `MalformedEntry` if it contradicts itself.
        """
        members = {ParticipantId(member.id): member for member in snapshot.members}
        organizer = ParticipantId(snapshot.organizer)
        if (
            snapshot.meeting_key != meeting_key
            or len(members) != len(snapshot.members)
            or organizer not in members
            or [i for i, _, _ in snapshot.since] != [member.id for member in snapshot.members]
            or any(admitted > snapshot.index or chat > snapshot.index for _, admitted, chat in snapshot.since)
            or not {snapshot.presenter, snapshot.control} <= members.keys() | {NOBODY}
            or not {i for i, _ in snapshot.chat} | set(snapshot.successors) <= members.keys()
        ):
            raise MalformedEntry("the snapshot contradicts itself")
        state = cls(
            session=session,
            meeting_key=meeting_key,
            index=snapshot.index,
            head=snapshot.head,
            organizer=organizer,
            members=members,
            ever={ParticipantId(i) for i in snapshot.ever} | members.keys(),
            presenter=ParticipantId(snapshot.presenter),
            control=ParticipantId(snapshot.control),
            chat_default=snapshot.chat_default,
            chat={ParticipantId(i): allowed for i, allowed in snapshot.chat},
            locked=snapshot.locked,
            knock=snapshot.knock,
            epoch=Epoch(snapshot.epoch),
            epoch_digest=snapshot.epoch_digest,
            successors=[ParticipantId(i) for i in snapshot.successors],
            control_since=snapshot.index,
            first_index=snapshot.index,
            heads=[snapshot.head],
        )
        at = snapshot.index
        state._presenters.append(Change(at, state.presenter))
        state._chat_default.append(Change(at, state.chat_default))
        state._chat.update({i: [Change(at, allowed)] for i, allowed in state.chat.items()})
        state._present.update({ParticipantId(i): admitted for i, admitted, _ in snapshot.since})
        state._chat_since.update({ParticipantId(i): chat for i, _, chat in snapshot.since})
        state._before.update(state._chat_since)
        return state

    def withdrawn(self) -> list[tuple[ParticipantId, int]]:
        """Whose right to chat the last entry ended, and the cut: later lines of theirs that name an earlier index do not count."""
        return [(i, ends[-1].cut) for (i, channel), ends in self._ended.items() if channel == Channel.CHAT and ends[-1].index == self.index]

    def _set_presenter(self, participant: ParticipantId) -> None:
        self.presenter = participant
        self.control = NOBODY
        self._presenters.append(Change(self.index, participant))

    def _cut(self, cuts: list[Cut], channels: tuple[int, ...], participants: set[ParticipantId]) -> None:
        """Their right on these channels ended now; a stream without a cut in the entry counts no further than nothing."""
        named = {(participant, channel): counter for participant, channel, counter in cuts}
        for participant in participants:
            for channel in channels:
                self._ended.setdefault((participant, channel), []).append(Ended(self.index, named.get((participant, channel), -1)))

    def _remove(self, participants: set[ParticipantId], cuts: list[Cut]) -> None:
        self._cut(cuts, (Channel.CHAT, Channel.FILE), participants)
        for participant in participants:
            self._gone[participant] = self.index
            self.departed[participant] = self.members.pop(participant)
            self.chat.pop(participant, None)
        if self.presenter in participants:
            self._set_presenter(NOBODY)
        if self.control in participants:
            self.control = NOBODY
        self.successors = [i for i in self.successors if i not in participants]


def _value_at(changes: list[Change], index: int, otherwise: Any) -> Any:
    """What held at `index`. Lists are short: a right changes a few times in a session."""
    for change in reversed(changes):
        if change.index <= index:
            return change.value
    return otherwise


@dataclass(frozen=True, slots=True)
class Rule:
    """`writer`: who causes the entry. `refuses`: why it is illegal, or "". `effect`: what it does (the index has moved already)."""

    writer: str
    refuses: Callable[[State, Any], str]
    effect: Callable[[State, Any], None]


def _refuse_open(state: State, entry: log.Open) -> str:
    if entry.session != state.session.to_bytes(8, "big") or entry.meeting_key != state.meeting_key:
        return "the log of another session"
    if entry.organizer.signing_key != entry.meeting_key or entry.organizer.role != Role.ORGANIZER:
        return "the organizer does not hold the meeting key"
    return "" if entry.epoch == 1 else "a session begins in epoch 1"


def _open(state: State, entry: log.Open) -> None:
    state.organizer = ParticipantId(entry.organizer.id)
    state.members[state.organizer] = entry.organizer
    state.ever.add(state.organizer)
    state.epoch = Epoch(entry.epoch)
    state._present[state.organizer] = state._chat_since[state.organizer] = state.index
    state.chat[state.organizer] = True  # a setting of its own: silencing everybody does not silence the organizer
    state._chat[state.organizer] = [Change(state.index, True)]
    state._chat_default.append(Change(state.index, state.chat_default))


def _refuse_admit(state: State, entry: log.Admit) -> str:
    ids = [member.id for member in entry.members]
    if len(set(ids)) != len(ids) or any(i in state.ever for i in ids):
        return "a participant ID is used once"
    if not ids and not entry.others:
        return "nobody is admitted"
    return _refuse_epoch_number(state, entry.epoch)


def _refuse_epoch_number(state: State, epoch: int) -> str:
    return "" if epoch == state.epoch + 1 and epoch >> 24 == state.epoch >> 24 else "epochs follow each other"


def _admit(state: State, entry: log.Admit) -> None:
    for member in entry.members:
        participant = ParticipantId(member.id)
        state.members[participant] = member
        state.ever.add(participant)
        state._present[participant] = state._chat_since[participant] = state.index
    state.epoch = Epoch(entry.epoch)
    state.epoch_digest = b""


def _refuse_leave(state: State, entry: log.Leave) -> str:
    if state.organizer in entry.participants:
        return "the organizer hands over or ends"
    return _refuse_members(state, entry.participants)


def _refuse_members(state: State, participants: list[int]) -> str:
    return "" if all(i in state.members for i in participants) and len(set(participants)) == len(participants) else "not a member"


def _leave(state: State, entry: log.Leave) -> None:
    state._remove({ParticipantId(i) for i in entry.participants}, entry.cuts)


def _refuse_dismiss(state: State, entry: log.Dismiss) -> str:
    return "nobody dismisses the organizer" if entry.participant == state.organizer else _refuse_members(state, [entry.participant])


def _dismiss(state: State, entry: log.Dismiss) -> None:
    state._remove({ParticipantId(entry.participant)}, entry.cuts)
    state.knock = True


def _refuse_nobody_or_member(state: State, entry: log.Presenter | log.Control) -> str:
    return _refuse_members(state, [entry.participant]) if entry.participant else ""


def _refuse_control(state: State, entry: log.Control) -> str:
    if entry.participant and not state.presenter:
        return "nobody presents"
    if entry.participant and entry.participant == state.presenter:
        return "the presenter has its own hands"
    return _refuse_nobody_or_member(state, entry)


def _control(state: State, entry: log.Control) -> None:
    state.control, state.control_since = ParticipantId(entry.participant), state.index


def _chat(state: State, entry: log.Chat) -> None:
    silent = [i for i in state.members if not state.chat.get(i, state.chat_default)]
    if entry.participant:
        participant = ParticipantId(entry.participant)
        state.chat[participant] = entry.allowed
        state._chat.setdefault(participant, []).append(Change(state.index, entry.allowed))
        silenced = {participant}
    else:
        state.chat_default = entry.allowed
        state._chat_default.append(Change(state.index, entry.allowed))
        silenced = {i for i in state.members if i not in state.chat}
    if not entry.allowed:
        state._cut(entry.cuts, (Channel.CHAT,), silenced)
    state._chat_since.update({i: state.index for i in silent if state.chat.get(i, state.chat_default)})


def _lock(state: State, entry: log.Lock) -> None:
    state.locked = entry.locked


def _knock(state: State, entry: log.Knock) -> None:
    state.knock = entry.required


def _rename(state: State, entry: log.Rename) -> None:
    participant = ParticipantId(entry.participant)
    state.members[participant] = msgspec.structs.replace(state.members[participant], name=entry.name)


def _epoch(state: State, entry: log.EpochEntry) -> None:
    state.epoch = Epoch(entry.epoch)
    state.epoch_digest = entry.digest


def _successors(state: State, entry: log.Successors) -> None:
    state.successors = [ParticipantId(i) for i in entry.participants]


def _end(state: State, entry: log.End) -> None:
    state.ended = True


def _never(state: State, entry: object) -> str:
    return ""


RULES: Final[dict[type, Rule]] = {
    log.Open: Rule("the organizer, once", _refuse_open, _open),
    log.Admit: Rule("the organizer, for guests whose secret matched", _refuse_admit, _admit),
    log.Leave: Rule("the organizer, for members who said so or were away for 120 s", _refuse_leave, _leave),
    log.Dismiss: Rule("the organizer", _refuse_dismiss, _dismiss),
    log.Presenter: Rule(
        "the organizer, by itself or at the presenter's wish", _refuse_nobody_or_member, lambda s, e: s._set_presenter(e.participant)
    ),
    log.Control: Rule("the organizer, at the presenter's wish", _refuse_control, _control),
    log.Chat: Rule("the organizer", lambda s, e: _refuse_members(s, [e.participant]) if e.participant else "", _chat),
    log.Lock: Rule("the organizer", _never, _lock),
    log.Knock: Rule("the organizer", _never, _knock),
    log.Rename: Rule("the organizer", lambda s, e: _refuse_members(s, [e.participant]), _rename),
    log.EpochEntry: Rule("the organizer, when its node has taken every wrapped key", lambda s, e: _refuse_epoch_number(s, e.epoch), _epoch),
    log.Successors: Rule("the organizer", lambda s, e: _refuse_members(s, e.participants), _successors),
    log.End: Rule("the organizer", _never, _end),
}
"""Kinds that are not here (hand-over, take-over, yield) have their bytes in `endpoint.log` and are refused as illegal until they are served."""
