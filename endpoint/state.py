"""What the session log means: who is here, who organizes, who presents, who may chat, which epoch. Sans-IO, the same at every member.

`endpoint.rules` is the table of kinds: for each, who causes it, what must hold, what it does. `State.apply` checks an entry's place in the
chain and its rule before anything changes, so a refused entry leaves the state as it was.

Rights are asked *at an index*: a packet names the log index that its sender had applied, and counts if its sender had the right there
and, where a later entry ended that right, if its counter is within that entry's cut. So all clients end with the same chat, whatever
arrived when.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from crypto.signing import WEAK_EXCHANGE
from endpoint import log
from endpoint.errors import BrokenChain, IllegalEntry, MalformedEntry
from endpoint.log import Cut, Member, SignedEntry
from endpoint.rules import CUT_CHANNELS, RULES
from wire.ids import EVERYONE, UNICAST_EPOCH, Channel, Epoch, ParticipantId, SessionId

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
    contested: Annotated[bytes, Meta(max_length=64)]  # a take-over to which nobody has yielded: the former key, the entry's hash


decode_snapshot: Final = msgspec.msgpack.Decoder(Snapshot).decode


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
    took_over_at: int = -1  # the index of the last take-over
    contested: bytes = b""  # a take-over to which nobody has yielded yet: the former organizer's key ‖ the entry's hash
    ended: bool = False
    first_index: int = 0  # history begins here: a newcomer's snapshot
    heads: list[bytes] = field(default_factory=list, repr=False)  # from first_index on
    _successors: list[Change] = field(default_factory=list, repr=False)
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

    def successors_at(self, index: int) -> tuple[ParticipantId, ...]:
        """Who might have taken over after entry `index`; nobody before this member's history."""
        return tuple(_value_at(self._successors, index, ()))

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

    def presenter_at(self, index: int) -> ParticipantId:
        """Who presented after entry `index`."""
        return ParticipantId(_value_at(self._presenters, max(index, self.first_index), NOBODY))

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
        elif channel == Channel.WHISPER:
            held = bool(_value_at(self._chat.get(sender, []), at, _value_at(self._chat_default, at, self.chat_default)))
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
            contested=self.contested,
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
            or len(snapshot.contested) not in (0, 64)
            or not WEAK_EXCHANGE.isdisjoint(member.exchange_key for member in snapshot.members)
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
            contested=snapshot.contested,
            control_since=snapshot.index,
            first_index=snapshot.index,
            heads=[snapshot.head],
        )
        at = snapshot.index
        state._note_successors()
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

    # what the rules do; `index` and `head` have moved already

    def enter(self, member: Member) -> None:
        """A member from here on."""
        participant = ParticipantId(member.id)
        self.members[participant] = member
        self.ever.add(participant)
        self._present[participant] = self._chat_since[participant] = self.index

    def take_chair(self, participant: ParticipantId) -> None:
        """The organizer from here on, which may chat by a setting of its own: silencing everybody does not silence it."""
        silent = not self.chat.get(participant, self.chat_default)
        self.organizer = participant
        self.successors = [i for i in self.successors if i != participant]
        self._note_successors()
        self.chat[participant] = True
        self._chat.setdefault(participant, []).append(Change(self.index, True))
        if silent:
            self._chat_since[participant] = self.index

    def replace(self, former: ParticipantId, new: ParticipantId) -> None:
        """The same person under a new participant ID. Nothing of the former one is cut: what it had sent counts."""
        if self.presenter == former:
            self.set_presenter(new)
        if self.control == former:
            self.set_control(new)
        self._drop(former)

    def set_presenter(self, participant: ParticipantId) -> None:
        self.presenter = participant
        self.control = NOBODY
        self._presenters.append(Change(self.index, participant))

    def set_control(self, participant: ParticipantId) -> None:
        self.control, self.control_since = participant, self.index

    def set_successors(self, participants: list[ParticipantId]) -> None:
        self.successors = participants
        self._note_successors()

    def rename(self, participant: ParticipantId, name: str) -> None:
        self.members[participant] = msgspec.structs.replace(self.members[participant], name=name)

    def note_chat_default(self) -> None:
        self._chat_default.append(Change(self.index, self.chat_default))

    def set_chat(self, participant: ParticipantId, allowed: bool, cuts: list[Cut]) -> None:
        """Of one participant, or (0) of everybody without a setting of its own."""
        silent = [i for i in self.members if not self.chat.get(i, self.chat_default)]
        if participant:
            self.chat[participant] = allowed
            self._chat.setdefault(participant, []).append(Change(self.index, allowed))
            silenced = {participant}
        else:
            self.chat_default = allowed
            self.note_chat_default()
            silenced = {i for i in self.members if i not in self.chat}
        if not allowed:
            self._cut(cuts, (Channel.CHAT,), silenced)
        self._chat_since.update({i: self.index for i in silent if self.chat.get(i, self.chat_default)})

    def remove(self, participants: set[ParticipantId], cuts: list[Cut]) -> None:
        self._cut(cuts, CUT_CHANNELS, participants)
        for participant in participants:
            self._drop(participant)
        if self.presenter in participants:
            self.set_presenter(NOBODY)
        if self.control in participants:
            self.control = NOBODY

    def _drop(self, participant: ParticipantId) -> None:
        self._gone[participant] = self.index
        self.departed[participant] = self.members.pop(participant)
        self.chat.pop(participant, None)
        if participant in self.successors:
            self.set_successors([i for i in self.successors if i != participant])

    def _cut(self, cuts: list[Cut], channels: tuple[int, ...], participants: set[ParticipantId]) -> None:
        """Their right on these channels ended now; a stream without a cut in the entry counts no further than nothing."""
        named = {(participant, channel): counter for participant, channel, counter in cuts}
        for participant in participants:
            for channel in channels:
                self._ended.setdefault((participant, channel), []).append(Ended(self.index, named.get((participant, channel), -1)))

    def _note_successors(self) -> None:
        self._successors.append(Change(self.index, tuple(self.successors)))


def _value_at(changes: list[Change], index: int, otherwise: Any) -> Any:
    """What held at `index`. Lists are short: a right changes a few times in a session."""
    for change in reversed(changes):
        if change.index <= index:
            return change.value
    return otherwise
