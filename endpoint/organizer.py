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
from endpoint.state import State, decode_snapshot
from endpoint.succession import accept
from endpoint.text import clean_name
from endpoint.ticket import Ticket
from wire.ids import EVERYONE, FIRST_EPOCH, ParticipantId, Role, Stream, next_epoch


class Organizer(Member):
    """Opens the session when constructed; `out` then holds its first entry. Or comes back into one."""

    def __init__(self, ticket: Ticket, saved: Saved, now: float, *, name: str = "", journal: Journal | None = None) -> None:
        """`saved`: the keys, and what there is to come back to: the same person, after its program has died, is a new participant with the
        same keys, and hands the chair over to itself. `name`: of who opens. `journal`: begun with `saved`, so that it knows what we know."""
        key, exchange = SigningKey.from_seed(saved.seed), ExchangeKey.from_bytes(saved.exchange)
        super().__init__(ticket.session, ticket.participant, ticket.meeting_key, key, exchange)
        self.features = ticket.features
        self.joined = True
        self.relay_office = self.me  # the manager has told the relays
        self.journal = journal
        self.take_chair(Chair(self, Verifier.from_bytes(saved.verifier), list(saved.chain), now))
        if saved.begun:
            self._come_back(saved, now)
        else:
            self._open(name, now)
        self.events.append(events.Joined())

    def _open(self, name: str, now: float) -> None:
        self.keyring.install(FIRST_EPOCH, new_group_key(), now)
        self.keyring.advance(FIRST_EPOCH, now)
        key, chair = self.signing.public, self.chair
        me = log.Member(self.me, Role.ORGANIZER, clean_name(name, "Organizer"), key, self.exchange.public)
        chair.write(log.Open(self.session.to_bytes(8, "big"), key, me, FIRST_EPOCH), now)
        if self.features is not None and "chat" not in self.features:
            chair.allow_chat(EVERYONE, False, now)

    def _come_back(self, saved: Saved, now: float) -> None:
        if saved.snapshot:
            self.state = State.from_snapshot(self.session, self.state.meeting_key, decode_snapshot(saved.snapshot))
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
        self.have.merge((*stream, counter) for stream, counter in start.items())
        epoch, previous = next_epoch(self.state.epoch), self.state.head
        signature = accept(self.state, self.me, self.signing, self.exchange.public, previous, epoch)
        self.chair.write(log.HandOver(self.me, self.signing.public, self.exchange.public, signature, epoch), now)
        self.chair.sit_down(now)
