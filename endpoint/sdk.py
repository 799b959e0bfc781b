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
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

import trio

from crypto.signing import SigningKey
from crypto.srp import make_verifier
from endpoint.errors import NoManager, WrongOrganizer
from endpoint.events import MustWait
from endpoint.guest import Guest
from endpoint.invitation import Invitation, invitation_for
from endpoint.journal import Journal
from endpoint.manager_api import ManagerApi, When
from endpoint.organizer import Organizer
from endpoint.session import Session
from endpoint.text import clean_line
from endpoint.words import new_password
from net.tls import client_context
from wire.ids import Role

Path = str | os.PathLike[str]
MAX_TITLE: Final = 200


@dataclass(frozen=True, slots=True)
class Meeting:
    """A scheduled meeting as its organizer keeps it. `seed` is the meeting key's: who has it is the organizer."""

    invitation: Invitation
    title: str
    seed: bytes = field(repr=False)


async def schedule(site: str, title: str, *, ca: Path, key: str, password: str | None = None, when: When | None = None) -> Meeting:
    """Make a meeting, its key and its password: four words, unless one is given; "" is none. `when`: None is any time.

    Raises ManagerRefused, ManagerUnreachable, PkiUnreadable.
    """
    client_context(ca, None)  # a missing or damaged file has its name before anything is made
    signing = SigningKey.generate()
    chosen = new_password() if password is None else password
    async with ManagerApi.connect(site, ca, key) as api:
        made = await api.schedule(clean_line(title)[:MAX_TITLE], signing.public, when)
    return Meeting(invitation_for(made.meeting, site, made.invite, chosen, signing.public), clean_line(made.title), signing.seed)


async def adopt(invitation: Invitation, site: str, *, ca: Path, key: str) -> Meeting:
    """Make the key of a meeting that was scheduled on the manager's pages, with the password of its link. From then on it is hosted here.

    Raises ManagerRefused, ManagerUnreachable, PkiUnreadable.
    """
    client_context(ca, None)
    signing = SigningKey.generate()
    async with ManagerApi.connect(site, ca, key) as api:
        made = await api.set_key(invitation.meeting, signing.public)
    whole = invitation_for(made.meeting, site, made.invite, invitation.password or "", signing.public)
    return Meeting(whole, clean_line(made.title), signing.seed)


@asynccontextmanager
async def host(meeting: Meeting, *, ca: Path, key: str, name: str = "Organizer", journal: Path | None = None) -> AsyncIterator[Session]:
    """Open the meeting and organize it while the block runs; its end ends the session for everyone.

    journal: a file that is kept while the session runs. If this process dies, the next `host` with the same file takes the same session up
    again. If the organizer's role has passed to somebody else meanwhile, this side joins as a guest.

    Raises ManagerRefused, ManagerUnreachable, WrongOrganizer, PkiUnreadable, JournalError.
    """
    tls = client_context(ca, None)
    signing = SigningKey.from_seed(meeting.seed)
    invitation = meeting.invitation
    if journal is not None:
        Journal.check_free(FilePath(journal))
    async with ManagerApi.connect(invitation.site, ca, key) as api:
        ticket = await api.open(invitation.meeting)
    if ticket.meeting_key != signing.public:
        raise WrongOrganizer("The manager names another key for this meeting than the one that was made here. Schedule a new one.")
    if ticket.role is not Role.ORGANIZER:
        guest = Guest(ticket, invitation.password or "", name, expected=invitation.expected)
        with single_errors():
            async with Session.open(guest, ticket, tls) as session:
                await session.until_joined()
                yield session
        return
    verifier = await trio.to_thread.run_sync(make_verifier, ticket.session, ticket.secret, invitation.password or "")
    book, saved = Journal.begin(FilePath(journal), meeting.seed, ticket.session) if journal is not None else (None, None)
    try:
        with single_errors():
            organizer = Organizer(ticket, signing, verifier, name, trio.current_time(), book, saved)
            async with Session.open(organizer, ticket, tls) as session:
                yield session
    finally:
        if book is not None:
            book.close()


@asynccontextmanager
async def join(
    invitation: Invitation, name: str, *, ca: Path, patience: float = 0.0, must_wait: Callable[[], None] = lambda: None
) -> AsyncIterator[Session]:
    """Be a guest while the block runs; its end says goodbye. The block begins when this side is in.

    must_wait: called if the secret matched and the organizer's person has to let us in, which may take long.
    patience: seconds to wait for a meeting that is not open yet; the manager tells that to those who have the invitation alone.
    Raises the `JoinError` that says why not, ManagerRefused, ManagerUnreachable, SessionOver, NoManager, PkiUnreadable.
    """
    if not invitation.site:
        raise NoManager
    tls = client_context(ca, None)
    async with ManagerApi.connect(invitation.site, ca) as api:
        ticket = await api.ticket(invitation.meeting, invitation.invite, patience=patience)
    guest = Guest(ticket, invitation.password or "", name, expected=invitation.expected)
    with single_errors():
        async with Session.open(guest, ticket, tls) as session:
            session.listen(lambda event: must_wait() if isinstance(event, MustWait) else None)
            await session.until_joined()
            yield session


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
