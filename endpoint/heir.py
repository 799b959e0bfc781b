"""How the chair comes to this member, or passes it by: offers, take-overs, and what others claim. Sans-IO.

    Estate, Offer ─▶ `ChairOffered` ─person: accept─▶ Accept ─▶ `hand-over` in the log ─▶ the chair
    60 s of silence ─person: take over─▶ the relay names us its office ─▶ `take-over`, signed by us ─▶ the chair

A relay can feign silence, so nobody takes over by itself, and a member follows a take-over only if it has heard nothing for 60 s either.
Who has applied entries past the place where somebody took over is on a branch that ends there: it joins anew, nothing is rolled back. Of
two take-overs at one place the higher participant ID wins, here as at the relays.

An organizer whose program died may have written entries that no relay has taken. When it comes back, its hand-over to itself stands past
them: signed by the key that we follow, it names the new participant and its keys, and that is asked for a snapshot.

A member that missed how the chair passed cannot read on: another key came with it. It asks whoever writes by the relay's word, who answers
with the chain of organizers, the key and the place of the roster. The organizer's return, whose hand-over may stand under a key that came
nowhere either, has an ID that nobody knows, and the former self's keys: what opens and seals under these is from it.
"""

from typing import TYPE_CHECKING, Final

from crypto.srp import Verifier
from endpoint import events, log
from endpoint.chair import Chair
from endpoint.errors import Fork, NoRight, NotAllowed, NotInOffice, WrongOrganizer
from endpoint.journal import JournalError, Saved
from endpoint.log import SignedEntry, sign_entry
from endpoint.messages import Accept, Asked, Estate, KeyMessage, Offer, Request, Succession, Verb, Yielded, encode
from endpoint.pulse import RESYNC_AFTER, TAKE_OVER_AFTER
from endpoint.rules import CUT_CHANNELS
from endpoint.succession import accept, follow_chain_untrusted, yields
from wire.control import Office
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId

if TYPE_CHECKING:
    from endpoint.member import Member

ASK_AGAIN: Final = 60.0
MAX_UNKNOWN: Final = 16
"""Offices that are no members and may be asked while one organizer is followed: each costs a key, and a relay may name them without end."""
CLAIM_EVERY: Final = 2.0
"""Seconds between two claims of the office at the relay, which counts its own 60 s."""


class Heir:
    """Owned by its member."""

    def __init__(self, member: "Member") -> None:
        self._member = member
        self._estate: Estate | None = None
        self._offer: Offer | None = None
        self._willing = False  # the person has accepted; the log may move before the organizer writes it
        self._claim_at: float | None = None
        self._returned: tuple[int, log.HandOver] | None = None  # the organizer, come back at a place of the log that we cannot reach
        self._follow_at = 0.0
        self._asked: tuple[ParticipantId, float] | None = None  # who writes the log by the relay's word; when to ask it how that came
        self._unknown = EVERYONE  # who was asked last as the organizer's return: no member that we know of
        self._strangers: set[ParticipantId] = set()  # everyone who was, since we follow this organizer

    @property
    def offered(self) -> bool:
        """Whether the organizer offers the chair, and the person has not answered."""
        return self._offer is not None and not self._willing

    @property
    def claiming(self) -> bool:
        return self._claim_at is not None

    def key_message(self, message: KeyMessage, now: float) -> bool:
        """What the organizer says about its chair. False if it is about something else."""
        member = self._member
        match message:
            case Estate():
                self._estate = message
            case Offer():
                self._offer = message
                if self._willing:
                    self.accept(now)
                else:
                    organizer = member.state.organizer
                    member.events.append(events.ChairOffered(organizer, member.name(organizer)))
            case Asked():
                asks = ParticipantId(message.participant)
                member.events.append(events.Wish(asks, member.name(asks), "ask-control"))
            case _:
                return False
        return True

    # what the person decides

    def accept(self, now: float) -> None:
        """Take the chair that was offered; the log says so when it is done. Raises NotAllowed."""
        member, offer = self._member, self._offer
        if offer is None or self._estate is None:
            raise NotAllowed("Nobody offers you the organizer's role.")
        self._willing = True
        signature = accept(member.state, member.me, member.signing, member.exchange.public, offer.previous, offer.epoch)
        member.say(Channel.KEY, encode(Accept(offer.previous, signature)), member.state.organizer)

    def decline(self, now: float) -> None:
        """Raises NotAllowed."""
        if self._offer is None:
            raise NotAllowed("Nobody offers you the organizer's role.")
        self._offer, self._willing = None, False
        self._member.request(Request(Verb.DECLINE), now)

    def take_over(self, now: float) -> None:
        """Claim the empty chair. Raises NotAllowed unless we are a successor and nothing was heard for 60 s."""
        member = self._member
        if member.me not in member.state.successors or self._estate is None:
            raise NotAllowed("The organizer has not named you as a successor.")
        silent = member.pulse.silent(now)
        if silent < TAKE_OVER_AFTER:
            raise NotAllowed(
                f"The organizer was heard {silent:.0f} s ago; its role can be taken over after {TAKE_OVER_AFTER:.0f} s of silence."
            )
        self._claim_at = now
        self.tick(now)

    # the chair

    def tick(self, now: float) -> None:
        member = self._member
        if self._returned is not None and now >= self._follow_at:
            index, back = self._returned
            if index <= member.state.index + 1:
                self._returned = None
            else:
                self._follow_at = now + RESYNC_AFTER
                member.follow(ParticipantId(back.participant), back.signing_key, back.exchange_key)
                member.resync_with(ParticipantId(back.participant))
        self._ask_the_office(now)
        if self._claim_at is None:
            return
        if member.pulse.silent(now) < TAKE_OVER_AFTER or member.state.organizer == member.me:
            self._claim_at = None
        elif member.relay_office == member.me:
            self._claim_at = None
            self._write_take_over(now)
        elif now >= self._claim_at:
            self._claim_at = now + CLAIM_EVERY
            member.out.append(Office(member.me, []))

    def _ask_the_office(self, now: float) -> None:
        """The relay lets another member write the log than the one that we follow, and what that one says does not open here."""
        member, office = self._member, self._member.relay_office
        unknown = office not in member.state.ever
        if office in (EVERYONE, member.me, member.state.organizer) or not (unknown or office in member.state.members):
            self._asked = None
        elif self._asked is None or self._asked[0] != office:
            self._asked = office, now + RESYNC_AFTER  # what is lacking may be on its way
        elif now >= self._asked[1]:
            self._asked = office, now + ASK_AGAIN
            if unknown and len(self._strangers | {office}) > MAX_UNKNOWN:
                member.dropped["office-unknown"] += 1
                return
            self._unknown = office if unknown else EVERYONE
            self._strangers.update({office} if unknown else ())
            member.pair_key_channel(office, self._organizer.exchange_key if unknown else b"")
            member.resync_with(office)

    @property
    def _organizer(self) -> log.Member:
        state = self._member.state
        return state.members[state.organizer]

    def key_of_unknown(self, sender: ParticipantId) -> bytes | None:
        """The key that somebody who is no member signs with if it is the organizer's return; None unless it was asked."""
        state = self._member.state
        return state.organizer_key if sender == self._unknown != EVERYONE and sender not in state.ever else None

    def answered(self, sender: ParticipantId) -> None:
        """Somebody has sealed for us on channel 0. Under the key of the organizer and us, and no member: then it is its return."""
        key = self.key_of_unknown(sender)
        if key is not None:
            self._member.follow(sender, key, self._organizer.exchange_key)

    def _write_take_over(self, now: float) -> None:
        member, state = self._member, self._member.state
        fields = log.TakeOver(member.me, Epoch(((state.epoch >> 24) + 1) << 24))
        signed = sign_entry(member.signing, state.index + 1, state.head, member.channels.last(Channel.LOG) + 1, fields)
        if state.refuses(signed):
            return  # un-named meanwhile
        member.out.extend(member.channels.seal(Channel.LOG, signed.wire))
        member.apply(signed, now)

    def sit_down(self, signed: SignedEntry, former: ParticipantId, now: float) -> None:
        """The log names us, after `former`. Without what that one had to leave us nobody new could come in: there is no chair to sit on."""
        estate = self._estate
        assert estate is not None, "we accepted, or took over, with it in hand"
        self._offer, self._willing = None, False
        member, chain = self._member, [*estate.chain, signed.wire]
        chair = Chair(member, Verifier.from_bytes(estate.verifier), chain, now)
        member.take_chair(chair)
        self._write_down(chair, estate.verifier, former)
        chair.sit_down(now)
        if member.relay_office == member.me:
            chair.greet()

    def _write_down(self, chair: Chair, verifier: bytes, former: ParticipantId) -> None:
        """From here on the session is on this machine's disk, if whoever runs us said where."""
        member, state = self._member, self._member.state
        if member.begin_journal is None:
            return
        counters = {(p, c): counter for p, c, counter in chair.all_cuts(CUT_CHANNELS)}
        key = member.keyring.current or 0, member.keyring.group_key
        seeds = member.signing.seed, member.exchange.to_bytes()
        saved = Saved(state.session, [], chair.chain, *seeds, verifier, encode(state.snapshot()), [], *key, counters, before=former)
        try:
            member.journal = member.begin_journal(saved)
        except JournalError as error:
            member.drop(error)

    def passed_by(self) -> None:
        """Somebody else organizes now: what the former one offered and left us is void."""
        self._offer, self._willing, self._estate = None, False, None
        self._strangers.clear()

    def yields_to(self, signed: SignedEntry, now: float) -> None:
        """We organized, and somebody took over with right: accept it."""
        member, taker = self._member, ParticipantId(signed.entry.fields.participant)  # type: ignore[union-attr]  # a TakeOver
        member.pair_key_channel(taker)
        member.say(Channel.KEY, encode(Yielded(signed.hash, yields(member.session, member.signing, signed.hash))), taker)

    # what others claim

    def judge_untrusted(self, sender: ParticipantId, content: bytes, now: float) -> bytes:
        """Somebody who does not organize, here, writes the log. The key that this must be signed with if it is a claim that holds.

        Raises NotInOffice (it may hold later), LogError, NoRight.
        """
        member, state = self._member, self._member.state
        said = log.peek_untrusted(content)
        fields = said.fields if isinstance(said, log.Entry) else None
        author = state.known(sender)
        if isinstance(said, log.Entry) and isinstance(fields, log.HandOver) and fields.participant == sender:
            if said.index == state.index + 1:
                return state.organizer_key
            if said.index > state.index + 1 and fields.signing_key == state.organizer_key and sender not in state.ever:
                log.authenticate_untrusted(content, state.organizer_key)
                if self._returned is None:
                    self._follow_at = now + RESYNC_AFTER  # what is lacking may be on its way
                if self._returned is None or self._returned[0] < said.index:
                    self._returned = said.index, fields
        elif isinstance(said, log.Entry) and isinstance(fields, log.TakeOver) and fields.participant == sender and author is not None:
            if said.index == state.index + 1 and (state.organizer == member.me or member.pulse.silent(now) >= TAKE_OVER_AFTER):
                return author.signing_key
            if said.index <= state.index:
                self._branch(log.read_entry_untrusted(content, author.signing_key), sender, now)
        elif said.index <= state.index or author is None:
            ours = state.head_at(said.index)
            theirs = said.head if isinstance(said, log.Heartbeat) else log.entry_hash(content[1 + log.SIGNATURE_SIZE :])
            if ours == theirs:
                member.dropped["log-known"] += 1
                raise NotInOffice(passed_over=True)
        if said.index <= state.index + 1 and author is not None and not isinstance(fields, log.HandOver | log.TakeOver):
            log.authenticate_untrusted(content, author.signing_key)
            raise NoRight(f"participant {sender} does not organize", certain=True)
        raise NotInOffice

    def shown(self, sender: ParticipantId, succession: Succession, now: float) -> None:
        """Somebody says that it organizes, and how it came to that. A chain that begins with the meeting's key and ends, beyond our log, with
        the sender's is to be followed if it leaves our log where that ends: by a hand-over of the organizer that we follow, or by one whom
        our log names a successor, after the silence that a take-over needs. Whoever could make that could have written it into our log;
        who organized once, or was a successor once, could not.

        Raises WrongOrganizer, Fork, NotAllowed.
        """
        member, state = self._member, self._member.state
        author = state.members.get(sender)
        if self._asked is None or sender != self._asked[0] or author is None:
            return
        if not succession.chain or follow_chain_untrusted(state.session, state.meeting_key, succession.chain) != author.signing_key:
            raise WrongOrganizer("the chain of organizers ends with somebody else")
        beyond: list[bytes] = []
        took_over = False
        for content in succession.chain:
            said = log.peek_untrusted(content)
            ours = state.head_at(said.index)
            if ours is not None and ours != log.entry_hash(content[1 + log.SIGNATURE_SIZE :]):
                raise Fork("a chain of organizers that is of another log")
            if said.index > state.index:
                beyond.append(content)
                took_over = took_over or (isinstance(said, log.Entry) and isinstance(said.fields, log.TakeOver))
        if not beyond or (took_over and member.pulse.silent(now) < TAKE_OVER_AFTER):
            raise NotAllowed("somebody organized once, or would like to")
        named: dict[int, bytes] = {i: state.members[i].signing_key for i in state.successors}
        if follow_chain_untrusted(state.session, state.organizer_key, beyond, named) != author.signing_key:
            raise WrongOrganizer("the chain of organizers does not go on from ours")
        member.follow(sender, author.signing_key, author.exchange_key)

    def _branch(self, entry: SignedEntry, sender: ParticipantId, now: float) -> None:
        """A signed take-over at a place that we have passed."""
        member, state = self._member, self._member.state
        index = entry.entry.index
        if entry.hash == state.head_at(index):
            raise NotInOffice(passed_over=True)
        if entry.entry.previous != state.head_at(index - 1) or sender not in state.successors_at(index - 1):
            return  # it continues nothing of ours, or had no right
        if state.organizer == member.me:
            if sender not in state.successors:
                return  # un-named since: we do not yield
            self.yields_to(entry, now)
            member.removed("superseded", SUPERSEDED)
        elif state.took_over_at == index:
            if sender > state.organizer:
                member.removed("superseded", SUPERSEDED)
        elif member.pulse.silent(now) >= TAKE_OVER_AFTER:
            member.removed("superseded", SUPERSEDED)


SUPERSEDED: Final = "The session goes on under another organizer, from a moment before what was seen here. Join it again."
