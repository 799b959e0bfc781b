"""Who may do what in one session at a relay: grants, admissions, office, tombstones. Pure: no link, no clock but `now`.

    grant (manager) ──Hello──▶ a link; until *admitted* (organizer) only channel 0 to the office
    office: the one participant that may write channels 1 and 10, admit, revoke, end, and pass the office on
    revoked: a tombstone, for ever      ended: nothing more is taken; channel 1 stays readable to grants for 120 s

Knowledge only grows, whatever the order in which it arrives: `revoked` beats a grant, `ended` beats all, a higher term of the office
beats a lower one (the higher participant within one term). That is why `Facts` can travel between nodes without any agreement.
"""

from collections.abc import Iterable
from enum import StrEnum
from hmac import compare_digest
from typing import Final

from mcs.limits import END_GRACE, KEEP_FOR, MAX_GRANTS, SUCCESSOR_AFTER
from wire.control import MAX_ENTRIES, VERSION, Facts, Grant, Hello
from wire.errors import CloseReason
from wire.ids import Channel, ParticipantId, RoleToken, SessionId
from wire.packet import CLEAR, PacketHeader

_NO_TOKEN: Final = bytes(RoleToken.SIZE)


class Pass(StrEnum):
    """What becomes of a packet from an endpoint's link. `OVER` is dropped; what is not to be forwarded closes the link as `forbidden`."""

    FORWARD = "forward"
    CLEAR = "clear"  # a handshake packet: to its recipient's links, outside every stream
    FOREIGN = "the packet names another session or sender"
    NOT_ADMITTED = "until admitted, only channel 0 to the organizer"
    NOT_OFFICE = "only the organizer writes log and roster"
    NOT_HANDSHAKE = "clear packets pass only to and from the organizer"
    OVER = "the session has ended"


class Admission:
    """What is known of one session. Owned by its `Session`; `merge` and the four acts are its only mutations."""

    __slots__ = ("admitted", "ended_at", "grants", "office", "revoked", "session", "successors", "term")

    def __init__(self, session: SessionId) -> None:
        self.session = session
        self.grants: dict[ParticipantId, Grant] = {}
        self.admitted: set[ParticipantId] = set()
        self.revoked: set[ParticipantId] = set()
        self.office = ParticipantId(0)  # 0: nobody yet
        self.successors: tuple[ParticipantId, ...] = ()
        self.term = 0
        self.ended_at: float | None = None  # by this node's clock

    @property
    def ended(self) -> bool:
        return self.ended_at is not None

    def enter(self, hello: Hello, now: float) -> CloseReason | None:
        """Why this caller is refused; None: it may come in. Unknown, foreign and forged tokens are one answer in one time."""
        participant = ParticipantId(hello.participant)
        grant = self.grants.get(participant)
        known = compare_digest(grant.token if grant else _NO_TOKEN, hello.token) and grant is not None and grant.role == hello.role
        if hello.version != VERSION:
            return CloseReason.VERSION_UNSUPPORTED
        if not known:
            return CloseReason.TOKEN_REFUSED
        if participant in self.revoked:
            return CloseReason.REVOKED
        if self.ended_at is not None and now - self.ended_at >= KEEP_FOR:
            return CloseReason.ENDED
        return None

    def check(self, header: PacketHeader, participant: ParticipantId, now: float) -> Pass:
        """What a packet from this participant's own link is worth. The log's last entries may come just after the end was said."""
        if header.session != self.session or header.sender != participant:
            return Pass.FOREIGN
        holder = participant == self.office
        if self.ended_at is not None and not (holder and header.channel == Channel.LOG and now - self.ended_at < END_GRACE):
            return Pass.OVER
        if header.flags & CLEAR:
            return Pass.CLEAR if holder or header.recipient == self.office else Pass.NOT_HANDSHAKE
        if header.channel in (Channel.LOG, Channel.ROSTER):
            return Pass.FORWARD if holder else Pass.NOT_OFFICE
        if holder or participant in self.admitted or (header.channel == Channel.KEY and header.recipient == self.office):
            return Pass.FORWARD
        return Pass.NOT_ADMITTED

    def merge(self, facts: Facts, now: float) -> Facts | None:
        """Learn. Returns what was new, to be passed on; None if nothing was. What is over the bounds is not learned."""
        grants = [g for g in facts.grants if ParticipantId(g.participant) not in self.grants and g.participant]
        grants = grants[: max(0, MAX_GRANTS - len(self.grants))]
        self.grants.update((ParticipantId(g.participant), g) for g in grants)
        admitted = self._add(self.admitted, [*facts.admitted, facts.office])  # whoever held the office is a member
        revoked = self._add(self.revoked, facts.revoked)
        office = facts.office and (facts.term, facts.office) > (self.term, self.office)
        if office:
            self.office, self.term = ParticipantId(facts.office), facts.term
            self.successors = tuple(map(ParticipantId, facts.successors))
        ended = facts.ended and not self.ended
        if ended:
            self.ended_at = now
        if not (grants or admitted or revoked or office or ended):
            return None
        return Facts(
            serial=0,
            session=self.session,
            grants=grants,
            admitted=admitted,
            revoked=revoked,
            office=self.office if office else 0,
            successors=list(self.successors) if office else [],
            term=self.term if office else 0,
            ended=ended,
        )

    def admit(self, by: ParticipantId, participants: Iterable[int]) -> Facts:
        """The organizer's word. Raises `PermissionError` if it is not the office that speaks."""
        self._demand_office(by)
        return Facts(serial=0, session=self.session, admitted=list(participants))

    def revoke(self, by: ParticipantId, participant: int) -> Facts:
        """A tombstone. Raises `PermissionError` if it is not the office that speaks, or if it names itself."""
        self._demand_office(by)
        if participant == self.office:
            raise PermissionError("the office cannot be revoked before it has passed to somebody else")
        return Facts(serial=0, session=self.session, revoked=[participant])

    def end(self, by: ParticipantId) -> Facts:
        """Over. Raises `PermissionError` if it is not the office that speaks."""
        self._demand_office(by)
        return Facts(serial=0, session=self.session, ended=True)

    def pass_office(self, by: ParticipantId, to: int, successors: Iterable[int], holder_away_for: float) -> Facts:
        """The holder names the next holder, or a listed successor takes the office that has stood empty for 60 s: until then its claim
        changes nothing.

        Raises `PermissionError` otherwise.
        """
        claims = by != self.office and by in self.successors and to == by and not self.ended
        if claims and holder_away_for < SUCCESSOR_AFTER:
            return Facts(serial=0, session=self.session)  # a successor's clock runs ahead of ours: it asks again
        if not claims:
            self._demand_office(by)
        if not to or to in self.revoked:
            raise PermissionError("the office passes to a participant of the session")
        successors = tuple(map(ParticipantId, successors))
        if (to, successors) == (self.office, self.successors):
            return Facts(serial=0, session=self.session)  # said again, with a new link: the term rises with changes alone
        return Facts(serial=0, session=self.session, office=to, successors=list(successors), term=self.term + 1)

    def facts(self) -> list[Facts]:
        """All of it, in messages within their limits; to be merged elsewhere."""
        grants, admitted, revoked = list(self.grants.values()), sorted(self.admitted), sorted(self.revoked)
        longest = max(len(grants), len(admitted), len(revoked), 1)
        return [
            Facts(
                serial=0,
                session=self.session,
                grants=grants[at : at + MAX_ENTRIES],
                admitted=list(admitted[at : at + MAX_ENTRIES]),
                revoked=list(revoked[at : at + MAX_ENTRIES]),
                office=self.office,
                successors=list(self.successors),
                term=self.term,
                ended=self.ended,
            )
            for at in range(0, longest, MAX_ENTRIES)
        ]

    def _demand_office(self, by: ParticipantId) -> None:
        if by != self.office or self.ended:
            raise PermissionError("only the organizer may say that")

    @staticmethod
    def _add(known: set[ParticipantId], said: Iterable[int]) -> list[int]:
        new = [p for p in dict.fromkeys(said) if p and p not in known][: max(0, MAX_GRANTS - len(known))]
        known.update(map(ParticipantId, new))
        return new
