"""`parley join`: be a guest."""

import math
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import trio

from endpoint import home, sdk
from endpoint.cli.attend import attend
from endpoint.cli.faces import Face, choose_face
from endpoint.cli.frame import Begin, run, session_options
from endpoint.cli.keys import LineParser, at_keyboard, read_lines
from endpoint.cli.organize import default_picture
from endpoint.cli.secrets_in import PROMPT, answered, first_line, parse_target, prompted, read_link_file, read_password_file
from endpoint.cli.share import open_share
from endpoint.errors import JoinInterrupted, ManagerRefused, NoManager, WrongSecret
from endpoint.invitation import Invitation
from endpoint.session import Session
from endpoint.settings import Settings, check_site, load_settings, own_name
from wire.ids import MeetingId, format_meeting_id

RETRIES: Final = 3
"""Passwords that a person may try."""
PATIENCE: Final = 12 * 3600.0
"""Seconds that somebody with the link waits for the organizer to open."""
SURE_WITHIN: Final = 5.0
"""Seconds between two Ctrl-C that end the meeting of somebody who came as a guest and organizes now."""


@click.command()
@click.argument("meeting", required=False)
@click.option("--name", help="How others see you.  [the name of your login]")
@click.option("--picture", metavar="FILE", help="Where the screen is kept as PNG.  [parley-MEETING.png]")
@click.option("--share", metavar="WHAT", help="Have something to show if you are asked to present: desktop, monitor:NAME, window:TITLE, …")
@click.option("--exclude", metavar="NAMES", help="Programs of the desktop that are never shown, separated by commas; black where they stand.")
@click.option("--display", help="The X11 display to share.  [$DISPLAY]")
@click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False), help="A file with the password.")
@click.option("--link-file", type=click.Path(path_type=Path, dir_okay=False), help="A file with the whole link.")
@click.option("--manager", metavar="URL", help="The service manager, https://HOST[:PORT].  [the link's]")
@click.option("--ca", metavar="FILE", help="The cluster's ca.crt.")
@session_options
def join(
    meeting: str | None,
    password_file: Path | None,
    link_file: Path | None,
    config: Path | None,
    as_json: bool,
    verbose: bool,
    share: str | None,
    **flags: str | None,
) -> None:
    """Join a meeting as a guest. MEETING is its ID, 123-456-789, or its link without the part behind the #.

    The password, or the whole link, is asked for; without a terminal it is the first line of standard input. A meeting of a `parley up`
    on this machine is found by itself.
    """
    if password_file and link_file:
        raise click.UsageError("--password-file and --link-file exclude each other.")

    async def work(begin: Begin) -> None:
        settings = load_settings(config, **flags)
        target = parse_target(meeting) if meeting else None
        lines: AsyncGenerator[str, None] | None = None
        if link_file:
            link = read_link_file(link_file)
            invitation = answered(target, link)
        else:
            target = target or _only_running()
            if password_file:
                invitation = answered(target, read_password_file(password_file))
            elif at_keyboard():
                invitation = answered(target, await prompted(PROMPT))
            else:
                lines = read_lines(LineParser())
                invitation = answered(target, await first_line(lines))
        invitation, ca = locate(invitation, settings)
        for _ in range(RETRIES):
            try:
                await join_meeting(settings, invitation, ca, choose_face(as_json, lines), begin, share=share or "")
                return
            except WrongSecret as error:
                if lines is not None or password_file or link_file or not at_keyboard():
                    raise
                click.echo(f"{error.sentence}", err=True)
                invitation = replace(answered(invitation, await prompted(PROMPT)), site=invitation.site)
        raise WrongSecret

    run(work, as_json=as_json, verbose=verbose)


def _only_running() -> Invitation | None:
    """The meeting of the one `parley up` on this machine, if there is one alone."""
    running = home.running_meetings()
    return Invitation(MeetingId(running[0].meeting_id)) if len(running) == 1 else None


def locate(invitation: Invitation, settings: Settings) -> tuple[Invitation, Path]:
    """Where the meeting is, and the CA of its cluster: flags and settings go first, then the link, then a `parley up` on this machine.

    Raises NoManager.
    """
    here = next((running for running in home.running_meetings() if running.meeting_id == invitation.meeting), None)
    site = settings.manager.rstrip("/") or invitation.site or (here.manager if here else "")
    ca = settings.ca or (here.ca if here else "")
    if not site:
        raise NoManager(f"No `parley up` on this machine has a meeting {format_meeting_id(invitation.meeting)}. {NoManager.sentence}")
    if not ca:
        raise NoManager("Name the CA of the meeting's cluster with --ca; the organizer has the file.")
    check_site(site)
    return replace(invitation, site=site), Path(ca)


async def join_meeting(settings: Settings, invitation: Invitation, ca: Path, face: Face, begin: Begin, *, share: str = "") -> None:
    """Be a guest until the meeting ends, or its person wants to leave. Waits for one that is not open yet."""
    name, journal = own_name(settings) or "Guest", home.chair_path(invitation.meeting)

    def must_wait() -> None:
        face.state("must-wait")

    async with AsyncExitStack() as stack:
        source = None
        if share:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-"))
            source = await stack.enter_async_context(open_share(share, settings.display, Path(scratch), settings.excluded))

        async def come_in(patience: float = 0.0) -> Session:
            opening: Any = sdk.join(invitation, name, ca=ca, patience=patience, must_wait=must_wait, journal=journal)
            session: Session = await stack.enter_async_context(opening)
            return session

        try:
            session = await come_in()
        except ManagerRefused as refused:
            if refused.name != "not-open-yet":
                raise
            face.say("The organizer has not opened the meeting yet; waiting …")
            session = await come_in(PATIENCE)
        except JoinInterrupted:
            face.say("Somebody else organizes the meeting since you were let in; trying again with another ticket …")
            session = await come_in()
        if home.pin(invitation.site, invitation.meeting, session.ticket.meeting_key) is home.Known.CHANGED:
            face.say("The organizer's key of this meeting is another one than last time. Compare the six words by voice before you trust it.")
        if session.member.organizes:
            face.say("You organized this session when your program died: you are back in it as its organizer.")
        begin(finish := trio.Event(), _asking(session, face))
        await attend(session, face, invitation, finish, source=source, picture=Path(settings.picture or default_picture(invitation.meeting)))


def _asking(session: Session, face: Face) -> Callable[[], bool]:
    """What Ctrl-C asks: whoever came as a guest, and organizes by now, may have forgotten that it ends the meeting for all."""
    asked_at = -math.inf

    def must_ask() -> bool:
        nonlocal asked_at
        if not session.member.organizes or session.over or trio.current_time() - asked_at < SURE_WITHIN:
            return False
        asked_at = trio.current_time()
        face.say("You are the organizer now. Ctrl-C again ends the meeting for everyone; /hand over to somebody first to leave it running.")
        return True

    return must_ask
