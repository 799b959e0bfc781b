"""Scheduling, hosting and joining in one call each: what a program of one's own uses, and what the command line is made of.

    meeting = await schedule(site, "Weekly", ca=ca, key=key)
    async with host(meeting, ca=ca, key=key) as session: …            the organizer
    async with join(meeting.invitation, "Ana", ca=ca) as session: …   a guest

Both give an `endpoint.session.Session`. docs/sdk.md shows a whole meeting. `site` is the manager's https://HOST[:PORT], `ca` the
cluster's `ca.crt`, `key` an organizer's API key. The password goes into the handshake and nowhere else; no server gets it.

A block's own error comes out as it is, not in an exception group, unless there are several.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Final

import trio
from OpenSSL import SSL

from crypto.signing import SigningKey
from crypto.srp import make_verifier
from endpoint.errors import ManagerRefused, NoManager, WrongOrganizer
from endpoint.events import MustWait
from endpoint.former import pass_on
from endpoint.guest import Guest
from endpoint.invitation import Invitation, invitation_for
from endpoint.journal import AlreadyHosted, Journal, Saved, Seat, claimed
from endpoint.manager_api import ManagerApi, When
from endpoint.member import Member
from endpoint.organizer import Organizer
from endpoint.session import Session
from endpoint.text import clean_line
from endpoint.ticket import Ticket
from endpoint.words import new_password
from net.tls import client_context
from wire.ids import ParticipantId, Role

Path = str | os.PathLike[str]
MAX_TITLE: Final = 200


@dataclass(frozen=True, slots=True)
class Meeting:
    """A scheduled meeting as its organizer keeps it. `seed` is the meeting key's: who has it is the organizer.

    `manager`: https://HOST[:PORT] of the API where it is hosted. The invitation's site is where guests find it: the same, or the pages'.
    """

    invitation: Invitation
    title: str
    seed: bytes = field(repr=False)
    manager: str


async def schedule(site: str, title: str, *, ca: Path, key: str, password: str | None = None, when: When | None = None) -> Meeting:
    """Make a meeting, its key and its password: four words, unless one is given; "" is none. `when`: None is any time.

    Raises ManagerRefused, ManagerUnreachable, PkiUnreadable.
    """
    client_context(ca, None)  # a missing or damaged file has its name before anything is made
    signing = SigningKey.generate()
    chosen = new_password() if password is None else password
    async with ManagerApi.connect(site, ca, key) as api:
        made = await api.schedule(clean_line(title)[:MAX_TITLE], signing.public, when)
    pages = made.site if made.site.startswith("https://") else site  # or they are for the manager's own machine alone
    return Meeting(invitation_for(made.meeting, pages, made.invite, chosen, signing.public), clean_line(made.title), signing.seed, site)


async def adopt(invitation: Invitation, site: str, *, ca: Path, key: str) -> Meeting:
    """Make the key of a meeting that was scheduled on the manager's pages, with the password of its link. From then on it is hosted here.

    Its guests' link leads to the pages still; `site`, the API's address, is where it is hosted.
    Raises ManagerRefused, ManagerUnreachable, PkiUnreadable.
    """
    client_context(ca, None)
    signing = SigningKey.generate()
    async with ManagerApi.connect(site, ca, key) as api:
        made = await api.set_key(invitation.meeting, signing.public)
    whole = invitation_for(made.meeting, made.site, made.invite, invitation.password or "", signing.public)
    return Meeting(whole, clean_line(made.title), signing.seed, site)


@asynccontextmanager
async def host(meeting: Meeting, *, ca: Path, key: str, name: str = "Organizer", journal: Path | None = None) -> AsyncIterator[Session]:
    """Open the meeting and organize it while the block runs; its end ends the session for everyone.

    journal: a file that is kept while the session runs. If this process dies, the next `host` with the same file takes the same session up
    again. If the organizer's role has passed to somebody else meanwhile, this side joins as a guest. Of two with the same file one is
    refused.

    Raises ManagerRefused, ManagerUnreachable, WrongOrganizer, PkiUnreadable, NoRelay, AlreadyHosted, JournalError.
    """
    tls = client_context(ca, None)
    signing = SigningKey.from_seed(meeting.seed)
    invitation = meeting.invitation
    book = _Book(FilePath(journal), lambda ticket: meeting.seed) if journal is not None else None
    with claimed(book.path) if book is not None else nullcontext() as claim:
        saved = claim.read(meeting.seed) if claim is not None else None
        async with ManagerApi.connect(meeting.manager, ca, key) as api:
            ticket = await _guests_ticket(api, invitation, saved) or await api.open(invitation.meeting)
        if ticket.meeting_key != signing.public:
            raise WrongOrganizer("The manager names another key for this meeting than the one that was made here. Schedule a new one.")
        member = await _come_back(ticket, tls, book, saved)
        if member is None and ticket.role is Role.ORGANIZER:
            verifier = await trio.to_thread.run_sync(make_verifier, ticket.session, ticket.secret, invitation.password or "")
            fresh = Saved.fresh(ticket.session, signing, verifier)
            begun = book.begin(ticket, fresh) if book is not None else None
            member = Organizer(ticket, fresh, trio.current_time(), name=name, journal=begun)
    async with _attended(member or Guest(ticket, invitation.password or "", name, expected=invitation.expected), ticket, tls, book) as session:
        yield session


@asynccontextmanager
async def join(
    invitation: Invitation,
    name: str,
    *,
    ca: Path,
    patience: float = 0.0,
    must_wait: Callable[[], None] = lambda: None,
    journal: Path | None = None,
) -> AsyncIterator[Session]:
    """Be a guest while the block runs; its end says goodbye. The block begins when this side is in.

    must_wait: called if the secret matched and the organizer's person has to let us in, which may take long.
    patience: seconds to wait for a meeting that is not open yet; the manager tells that to those who have the invitation alone.
    journal: a file that is kept from when the organizer's role has come to this side until the session ends. If this process dies, the
    next `join` with the same file is the organizer again.
    Raises the `JoinError` that says why not, ManagerRefused, ManagerUnreachable, SessionOver, NoManager, PkiUnreadable.
    """
    if not invitation.site:
        raise NoManager
    tls = client_context(ca, None)
    async with ManagerApi.connect(invitation.site, ca) as api:
        ticket = await api.ticket(invitation.meeting, invitation.invite, patience=patience)
    book = _Book(FilePath(journal), lambda ticket: ticket.secret) if journal is not None else None
    member: Member | None = None
    if book is not None:
        with suppress(AlreadyHosted), claimed(book.path, create=False) as claim:  # another program of this user organizes: we are a guest
            member = await _come_back(ticket, tls, book, claim.read(ticket.secret) if claim is not None else None)
    guest = member or Guest(ticket, invitation.password or "", name, expected=invitation.expected)
    async with _attended(guest, ticket, tls, book, must_wait) as session:
        yield session


@dataclass(frozen=True, slots=True)
class _Book:
    """Where a chair of ours is written down, and under which seed."""

    path: FilePath
    seed: Callable[[Ticket], bytes]

    def begin(self, ticket: Ticket, saved: Saved) -> Journal:
        """Raises JournalError."""
        seat = Seat(ticket.participant, ticket.role, ticket.token.reveal())
        return Journal.begin(self.path, self.seed(ticket), replace(saved, seats=[*saved.seats, seat]))


async def _guests_ticket(api: ManagerApi, invitation: Invitation, saved: Saved | None) -> Ticket | None:
    """For a host that died with the chair on its way to somebody else: the manager may not have heard of that, and would give it back."""
    if saved is not None and saved.passed is not None:
        with suppress(ManagerRefused):
            ticket = await api.ticket(invitation.meeting, invitation.invite)
            return ticket if ticket.session == saved.session else None
    return None


async def _come_back(ticket: Ticket, tls: SSL.Context, book: _Book | None, saved: Saved | None) -> Organizer | None:
    """What an earlier process left of this session is finished, or taken up again. None: then we are a guest, or begin.

    Raises JournalError; NoRelay if that could not be done now, and may be later.
    """
    if book is None or saved is None or saved.session != ticket.session:
        return None
    if saved.passed is not None:
        await pass_on(saved, ticket, tls, ParticipantId(saved.passed.to), saved.passed.packets)
        return None
    begun = book.begin(ticket, saved)  # before the office is ours: a process that comes after this one has to know who holds it
    try:
        ours = ticket.role is Role.ORGANIZER or await pass_on(saved, ticket, tls, ticket.participant)
    except BaseException:
        begun.close()
        raise
    if ours:
        return Organizer(ticket, saved, trio.current_time(), journal=begun)
    begun.forget()
    return None


@asynccontextmanager
async def _attended(
    member: Member, ticket: Ticket, tls: SSL.Context, book: _Book | None, must_wait: Callable[[], None] = lambda: None
) -> AsyncIterator[Session]:
    """The session of this member, from when it is in. What it wrote down goes when it is of no more use."""
    if book is not None:
        member.begin_journal = lambda saved: book.begin(ticket, saved)
    try:
        with single_errors():
            async with Session.open(member, ticket, tls) as session:
                session.listen(lambda event: must_wait() if isinstance(event, MustWait) else None)
                await session.until_joined()
                yield session
    finally:
        if member.journal is not None:
            member.journal.forget() if member.settled else member.journal.close()


@contextmanager
def single_errors() -> Iterator[None]:
    """A nursery's group of one error, however deep, comes out as that error; cancellations beside it do not count."""
    try:
        yield
    except BaseExceptionGroup as group:
        _, rest = group.split(trio.Cancelled)
        found = list(leaves(rest)) if rest else []
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors themselves, however deep their groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
