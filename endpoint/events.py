"""What a session tells the program that holds it. Frozen facts, in the order in which they happened."""

from dataclasses import dataclass, field

from endpoint.hands import Input, Pointer
from wire.ids import ParticipantId


@dataclass(frozen=True, slots=True)
class Event:
    pass


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """This side is in: the roster is known, chat may be sent."""


@dataclass(frozen=True, slots=True)
class MemberJoined(Event):
    participant: ParticipantId
    name: str


@dataclass(frozen=True, slots=True)
class MemberLeft(Event):
    participant: ParticipantId
    name: str
    dismissed: bool = False


@dataclass(frozen=True, slots=True)
class PresenterChanged(Event):
    """`participant` 0: nobody presents now."""

    participant: ParticipantId
    name: str


@dataclass(frozen=True, slots=True)
class ControlChanged(Event):
    """Who holds the presenter's mouse and keyboard from here on; `participant` 0: the presenter alone."""

    participant: ParticipantId
    name: str


@dataclass(frozen=True, slots=True)
class InputReceived(Event):
    """To the presenter: hands of the participant who held the controls at the log index that the message names."""

    participant: ParticipantId
    input: Input


@dataclass(frozen=True, slots=True)
class PointerMoved(Event):
    """The presenter's pointer. Not signed: any member could have said it."""

    participant: ParticipantId
    pointer: Pointer


@dataclass(frozen=True, slots=True)
class ChatReceived(Event):
    """A line of chat to all; our own ones too, when they are sealed. `counter` counts the sender's lines without a gap."""

    participant: ParticipantId
    name: str
    text: str
    time_ms: int
    counter: int


@dataclass(frozen=True, slots=True)
class ChatWithdrawn(Event):
    """A right ended, and lines beyond its cut were shown here before: those of this participant with a higher counter do not count."""

    participant: ParticipantId
    name: str
    counter: int


@dataclass(frozen=True, slots=True)
class ChatRightChanged(Event):
    """`participant` 0: of everybody without a setting of its own."""

    participant: ParticipantId
    allowed: bool


@dataclass(frozen=True, slots=True)
class PresenceChanged(Event):
    """Who has no link at this moment, by the organizer's word."""

    away: frozenset[ParticipantId]


@dataclass(frozen=True, slots=True)
class ScreenMessage(Event):
    """One authentic message of the presenter's screen: `snapshot`, or an update with its `kind`. `counter`: the last one of channel 5 that
    it shows."""

    participant: ParticipantId
    snapshot: bool
    content: bytes = field(repr=False)
    restart: bool
    counter: int = -1


@dataclass(frozen=True, slots=True)
class ScreenGap(Event):
    """Updates were skipped: a snapshot is needed."""

    participant: ParticipantId


@dataclass(frozen=True, slots=True)
class SnapshotWanted(Event):
    """Somebody (a relay says) lacks our screen."""


@dataclass(frozen=True, slots=True)
class WhisperReceived(Event):
    """A line to one member: `recipient` is us, or it is our own line."""

    participant: ParticipantId
    name: str
    recipient: ParticipantId
    to: str
    text: str
    time_ms: int
    counter: int


@dataclass(frozen=True, slots=True)
class WhisperRead(Event):
    """The program of this participant has our whispers up to `counter`."""

    participant: ParticipantId
    counter: int


@dataclass(frozen=True, slots=True)
class WhisperUndelivered(Event):
    """This participant is gone, and has not confirmed the last `lines` of our whispers."""

    participant: ParticipantId
    name: str
    lines: int


@dataclass(frozen=True, slots=True)
class Renamed(Event):
    participant: ParticipantId
    former: str
    name: str


@dataclass(frozen=True, slots=True)
class DoorChanged(Event):
    """Whether nobody comes in (`locked`), and whether newcomers wait to be let in (`knock`)."""

    locked: bool
    knock: bool


@dataclass(frozen=True, slots=True)
class OrganizerChanged(Event):
    """The log names another organizer. `took_over`: without the former one's word."""

    participant: ParticipantId
    name: str
    took_over: bool = False


@dataclass(frozen=True, slots=True)
class SuccessorsChanged(Event):
    """Who may take over when nothing is heard of the organizer for 60 s."""

    participants: tuple[ParticipantId, ...]


@dataclass(frozen=True, slots=True)
class ChairOffered(Event):
    """The organizer offers its role to us: accept or decline. It cannot be given back but by another hand-over."""

    participant: ParticipantId
    name: str


@dataclass(frozen=True, slots=True)
class OfferDeclined(Event):
    """To the organizer: whom it offered its role does not want it."""

    participant: ParticipantId
    name: str


@dataclass(frozen=True, slots=True)
class KeyChanged(Event):
    """The group key of a new epoch holds: who left cannot read on."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Knocked(Event):
    """To the organizer: somebody with the right secret waits to be let in."""

    participant: ParticipantId
    name: str


@dataclass(frozen=True, slots=True)
class KnockEnded(Event):
    """To the organizer: whoever waited has gone away."""

    participant: ParticipantId


@dataclass(frozen=True, slots=True)
class MustWait(Event):
    """To a guest: the secret matched, and the organizer's person has to let us in."""


@dataclass(frozen=True, slots=True)
class Wish(Event):
    """To the organizer, or the presenter: a member asks for something that its person decides."""

    participant: ParticipantId
    name: str
    verb: str


@dataclass(frozen=True, slots=True)
class JoinRefused(Event):
    """To the organizer: somebody with a valid ticket did not get in."""

    participant: ParticipantId
    reason: str


@dataclass(frozen=True, slots=True)
class LinkChanged(Event):
    """Our own link to a relay. `node` empty: none at this moment; it is tried again by itself."""

    node: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """Something was refused by name, and nothing else happened. `participant` 0: its sender is not certain."""

    name: str
    sentence: str
    participant: ParticipantId


@dataclass(frozen=True, slots=True)
class OrganizerMissing(Event):
    """No heartbeat, or an old one, for 15 s: organizer unreachable, or withheld. `missing` False: it is back."""

    missing: bool


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """The organizer ended the session: the signed last entry is applied, the keys are gone."""


@dataclass(frozen=True, slots=True)
class Removed(Event):
    """This side is no member any more: `left`, `dismissed`, or the reason for which the link was refused for good."""

    reason: str
    sentence: str
