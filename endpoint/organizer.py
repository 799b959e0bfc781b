"""How a session begins: the member that opens it, and its return after a restart. Sans-IO.

`Organizer` is a member with the chair from the first moment on (`endpoint.chair` is what it does there). It may pass the chair on, and is an
ordinary member then.
"""

from crypto.schedule import new_group_key
from crypto.signing import ExchangeKey, SigningKey
from crypto.srp import Verifier
from endpoint import events, log
from endpoint.chair import Chair
from endpoint.journal import Journal, Saved
from endpoint.member import Member
from endpoint.state import State
from endpoint.succession import accept
from endpoint.text import clean_name
from endpoint.ticket import Ticket
from wire.ids import EVERYONE, FIRST_EPOCH, ParticipantId, Role, Stream, next_epoch


class Organizer(Member):
    """Opens the session when constructed; `out` then holds its first entry. With `saved` it comes back into the session that an earlier
    process left behind: a new participant, the same key, and the chair handed over to itself."""

    def __init__(
        self,
        ticket: Ticket,
        key: SigningKey,
        verifier: Verifier,
        name: str,
        now: float,
        journal: Journal | None = None,
        saved: Saved | None = None,
    ) -> None:
        super().__init__(ticket.session, ticket.participant, key.public, key, ExchangeKey.generate())
        self.features = ticket.features
        self.joined = True
        self.relay_office = self.me  # the manager has told the relays
        if saved is None:
            self._open(Chair(self, verifier, [], now, journal), name, now)
        else:
            self._come_back(Chair(self, verifier, list(saved.chain), now, journal), saved, now)
        self.events.append(events.Joined())

    def _open(self, chair: Chair, name: str, now: float) -> None:
        self.take_chair(chair)
        self.keyring.install(FIRST_EPOCH, new_group_key(), now)
        self.keyring.advance(FIRST_EPOCH, now)
        key = self.signing.public
        me = log.Member(self.me, Role.ORGANIZER, clean_name(name, "Organizer"), key, self.exchange.public)
        chair.write(log.Open(self.session.to_bytes(8, "big"), key, me, FIRST_EPOCH), now)
        if self.features is not None and "chat" not in self.features:
            chair.allow_chat(EVERYONE, False, now)

    def _come_back(self, chair: Chair, saved: Saved, now: float) -> None:
        self.take_chair(chair)
        self.state = State.genesis(self.session, self.signing.public)
        for content in saved.entries:
            author = None if self.state.index < 0 else self.state.organizer_key
            said = log.peek_untrusted(content)
            assert isinstance(said, log.Entry)
            parsed = log.parse_log_untrusted(content, author, said.counter)
            assert isinstance(parsed, log.SignedEntry)
            self.state.apply(parsed)
        self.keyring.install(saved.epoch, saved.group_key, now)
        self.keyring.advance(saved.epoch, now)
        start = {Stream(ParticipantId(p), EVERYONE, c): counter for (p, c), counter in saved.counters.items()}
        self.channels.begin_at(start, self.state.members)
        epoch, previous = next_epoch(self.state.epoch), self.state.head
        signature = accept(self.state, self.me, self.signing, self.exchange.public, previous, epoch)
        chair.write(log.HandOver(self.me, self.signing.public, self.exchange.public, signature, epoch), now)
        chair.sit_down(now)
