"""Two or three members' channels over one log, without a session around them: what is sealed here is opened there."""

from dataclasses import dataclass, field

from crypto.keyring import Keyring
from crypto.schedule import pair_prk
from crypto.signing import ExchangeKey, MessageHash, SigningKey
from crypto.suite import LABEL_SIGNATURE
from endpoint import log
from endpoint.channel import INDEX, Channels
from endpoint.member import Member
from endpoint.state import State
from wire.ids import EVERYONE, UNICAST_EPOCH, Channel, Epoch, ParticipantId, SessionId
from wire.packet import SIGNED_CHANNELS, Flag, pack_header

SESSION = SessionId(0x0102030405060708)
OLGA, ANN, BOB, EVE = (ParticipantId(i) for i in (1, 2, 3, 4))
SIGNING = {i: SigningKey.from_seed(bytes((i,)) * 32) for i in (OLGA, ANN, BOB, EVE)}
EXCHANGE = {i: ExchangeKey.from_bytes(bytes((i,)) * 32) for i in (OLGA, ANN, BOB, EVE)}
GROUP_KEY = bytes(range(16))
ROSTER_KEY = bytes(range(16, 32))
KEK = bytes(range(32))


def member(i: ParticipantId) -> log.Member:
    return log.Member(i, 1 if i == OLGA else 2, f"member {i}", SIGNING[i].public, EXCHANGE[i].public)


@dataclass
class Log:
    """Entries by the organizer, to be applied by each member when it likes."""

    entries: list[log.SignedEntry] = field(default_factory=list)

    def write(self, fields: log.Fields) -> None:
        previous = self.entries[-1].hash if self.entries else log.genesis(SESSION)
        self.entries.append(log.sign_entry(SIGNING[OLGA], len(self.entries), previous, len(self.entries), fields))

    @classmethod
    def meeting(cls) -> "Log":
        """Everybody is in, Ann presents."""
        made = cls()
        made.write(log.Open(SESSION.to_bytes(8, "big"), SIGNING[OLGA].public, member(OLGA), 1))
        made.write(log.Admit([member(i) for i in (ANN, BOB, EVE)], 2))
        made.write(log.Presenter(ANN))
        return made


class Peer:
    """One member's channels. Is its own roster."""

    def __init__(self, me: ParticipantId, story: Log, entries: int | None = None, *, session: SessionId = SESSION, epoch: int = 2) -> None:
        self.me = me
        self.state = State.genesis(SESSION, SIGNING[OLGA].public)
        self.story = story
        self.read(entries)
        self.keyring = Keyring(session, me)
        self.keyring.install(epoch, GROUP_KEY, 0.0)
        self.keyring.advance(epoch, 0.0)
        self.keyring.set_roster(epoch, ROSTER_KEY)
        for other in SIGNING:
            if other != me:
                shared = EXCHANGE[me].shared(EXCHANGE[other].public)
                self.keyring.set_pair(other, pair_prk(session, me, EXCHANGE[me].public, other, EXCHANGE[other].public, shared))
                self.keyring.set_key_channel(other, KEK)
        self.channels = Channels(session, me, SIGNING[me], self.keyring, self)

    def read(self, entries: int | None = None) -> None:
        """Apply the log up to here."""
        for entry in self.story.entries[self.state.index + 1 : entries]:
            self.state.apply(entry)

    # the roster

    @property
    def index(self) -> int:
        return self.state.index

    def signing_key(self, sender: ParticipantId) -> bytes | None:
        known = self.state.known(sender)
        return known.signing_key if known else None

    def head_at(self, index: int) -> bytes | None:
        return self.state.head_at(index)

    def may_send(self, sender: ParticipantId, channel: int, index: int, counter: int) -> bool:
        return self.state.may_send(sender, channel, index, counter)

    def check_log(self, sender: ParticipantId, content: bytes, counter: int) -> None:
        log.parse_log_untrusted(content, SIGNING[OLGA].public, counter)

    # a modified client

    def craft(self, channel: int, content: bytes, flags: int, to: ParticipantId = EVERYONE, *, signer: SigningKey | None = None) -> bytes:
        return craft(self, channel, content, flags, to, signer=signer)


def craft(
    member: Peer | Member, channel: int, content: bytes, flags: int, to: ParticipantId = EVERYONE, *, signer: SigningKey | None = None
) -> bytes:
    """One packet with any flags and any content, sealed and (where the channel is signed) signed as it should be."""
    channels = member.channels
    epoch, sealer = member.keyring.sealer(to, channel)
    header = pack_header(flags, channel, channels.session, member.me, to, Epoch(epoch) if to == EVERYONE else UNICAST_EPOCH, sealer.last + 1)
    if channel in SIGNED_CHANNELS:
        content = INDEX.pack(member.index, member.state.head[:16]) + content
        if flags & Flag.LAST:
            digest = MessageHash(channels._base if channel == Channel.SCREEN else b"")
            digest.update(header, content)
            content = (signer or channels._key).sign(LABEL_SIGNATURE, digest.digest()) + content
    return sealer.seal(header, sealer.last + 1, content)


def recipient(channel: int) -> ParticipantId:
    """To whom Ann's packets of this channel go in these tests."""
    return BOB if channel in (Channel.KEY, Channel.WHISPER, Channel.INPUT) else EVERYONE
