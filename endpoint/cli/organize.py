"""`parley schedule`, `host` and `end`: meetings of a service manager that somebody runs."""

import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import click
import trio

from crypto.signing import SigningKey
from endpoint import home, sdk
from endpoint.cli import view
from endpoint.cli.attend import attend
from endpoint.cli.faces import choose_face, emit
from endpoint.cli.frame import Begin, run, session_options
from endpoint.cli.secrets_in import prompted, read_password_file
from endpoint.cli.share import open_share
from endpoint.errors import ManagerRefused, NoManager, SessionOver
from endpoint.invitation import parse_invitation_untrusted
from endpoint.manager_api import ManagerApi, When
from endpoint.settings import Settings, api_key, load_settings, own_name
from endpoint.words import comparison_words
from wire.ids import MeetingId, format_meeting_id

_manager = click.option("--manager", metavar="URL", help="The service manager, https://HOST[:PORT].")
_ca = click.option("--ca", metavar="FILE", help="The cluster's ca.crt.")
_key = click.option("--key-file", metavar="FILE", help="A file with your API key, from `parley manager add-organizer`.  [$PARLEY_API_KEY_FILE]")


def default_picture(meeting: MeetingId) -> str:
    return f"parley-{meeting}.png"


@click.command()
@click.option("--title", help="What the meeting is about; its guests see it, and so does the manager.")
@click.option("--starts", metavar="TIME", help="When it begins: 2026-03-02T15:00, on the clock of its zone.  [any time]")
@click.option("--zone", help="Such as Europe/Paris.  [this machine's]")
@click.option("--length", type=click.IntRange(1, 1440), metavar="MINUTES", help="How long it takes.  [60]")
@click.option("--repeat", type=click.Choice(["day", "week", "month"]), help="It comes again every day, week or month.")
@click.option("--times", type=click.IntRange(2, 366), help="How often in all, with --repeat.  [10]")
@click.option("--adopt", is_flag=True, help="Host a meeting here that was scheduled on the manager's site: you are asked for its link.")
@click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False), help="A file with the password.  [four fresh words]")
@click.option("--no-password", is_flag=True, help="None: then whoever runs the servers could impersonate you.")
@_manager
@_ca
@_key
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with settings; flags go before it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def schedule(
    title: str | None,
    starts: str | None,
    zone: str | None,
    length: int | None,
    repeat: str | None,
    times: int | None,
    adopt: bool,
    password_file: Path | None,
    no_password: bool,
    config: Path | None,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Make a meeting, and show what its guests need. Its key is kept on this machine, for `parley host`."""
    if password_file and no_password:
        raise click.UsageError("--password-file and --no-password exclude each other.")
    if adopt == (title is not None) or (adopt and (password_file or no_password)):
        raise click.UsageError("Name the new meeting with --title, or take one over with --adopt alone.")

    if starts is None and (zone or length or repeat):
        raise click.UsageError("--zone, --length and --repeat need --starts: a meeting at any time has none of them.")
    if times and not repeat:
        raise click.UsageError("--times needs --repeat.")
    if adopt and starts:
        raise click.UsageError("The time of a meeting that was scheduled on the site is changed there.")
    when = None if starts is None else When(starts, zone or _own_zone(), length or 60, repeat, times or 10)

    async def work(begin: Begin) -> None:
        settings = load_settings(config, **flags)
        site, ca = _where(settings)
        if title is None:
            link = parse_invitation_untrusted(await prompted("The meeting's link (not shown): "))
            meeting = await sdk.adopt(link, site, ca=ca, key=api_key(settings))
        else:
            password = "" if no_password else read_password_file(password_file) if password_file else None
            meeting = await sdk.schedule(site, title, ca=ca, key=api_key(settings), password=password, when=when)
        path = home.keep(home.KeptMeeting(meeting, ca))
        words = comparison_words(SigningKey.from_seed(meeting.seed).public)
        if as_json:
            emit("meeting", **view.invitation_facts(meeting.invitation, meeting.title, words), kept=str(path))
        else:
            click.echo(view.invitation_text(meeting.invitation, meeting.title, words).plain)
            click.echo(f"\nOpen it with: parley host {format_meeting_id(meeting.invitation.meeting)}")

    run(work, as_json=as_json)


def _own_zone() -> str:
    """The IANA name of this machine's zone; UTC if it does not say one."""
    where = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")[2]
    return where if where in available_timezones() else "UTC"


def _where(settings: Settings) -> tuple[str, Path]:
    if not settings.manager or not settings.ca:
        raise NoManager("Name the service manager with --manager, and the CA of its cluster with --ca, or both in parley.toml.")
    return settings.manager.rstrip("/"), Path(settings.ca)


def _meeting_id(text: str) -> MeetingId:
    return parse_invitation_untrusted(text).meeting


@click.command()
@click.argument("meeting")
@click.option("--name", help="How others see you.  [the name of your login]")
@click.option(
    "--share",
    metavar="WHAT",
    help="auto, desktop, monitor:NAME, window:TITLE, region:WxH+X+Y, xvfb (a desktop of its own), or a folder of pictures.  [auto]",
)
@click.option("--exclude", metavar="NAMES", help="Programs of the desktop that are never shown, separated by commas; black where they stand.")
@click.option("--display", help="The X11 display to share.  [$DISPLAY]")
@click.option("--picture", metavar="FILE", help="Where the screen is kept as PNG while somebody else presents.  [parley-MEETING.png]")
@_key
@session_options
def host(meeting: str, config: Path | None, as_json: bool, verbose: bool, **flags: str | None) -> None:
    """Open a meeting that `parley schedule` made on this machine: organize it, and share your screen.

    Ctrl-C ends the meeting for everyone.
    """

    async def work(begin: Begin) -> None:
        await host_meeting(load_settings(config, **flags), _meeting_id(meeting), begin, as_json=as_json)

    run(work, as_json=as_json, verbose=verbose)


async def host_meeting(settings: Settings, number: MeetingId, begin: Begin, *, as_json: bool) -> None:
    """Until it ends; then its key is forgotten, unless the meeting comes again."""
    kept = home.kept(number)
    meeting = kept.meeting
    async with AsyncExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-"))
        source = await stack.enter_async_context(open_share(settings.share, settings.display, Path(scratch), settings.excluded))
        face = choose_face(as_json)
        journal = home.journal_path(number)
        opening: Any = sdk.host(meeting, ca=kept.ca, key=api_key(settings), name=own_name(settings) or "Organizer", journal=journal)
        try:
            session = await stack.enter_async_context(opening)
        except ManagerRefused as refused:
            if refused.name == "meeting-ended":
                home.forget(number)
            raise
        if session.member.organizes and session.state.index > 0:
            face.say("This session was running: you are back in it as its organizer.")
        elif not session.member.organizes:
            face.say("Somebody else organizes this session now; you are in it as a guest.")
        async with ManagerApi.connect(meeting.manager, kept.ca, api_key(settings)) as api:
            again = await api.comes_again(number)
        stack.callback(lambda: home.forget(number) if session.state.ended and not again else None)
        begin(finish := trio.Event())

        def keep_password(password: str) -> None:
            home.keep(replace(kept, meeting=replace(meeting, invitation=replace(meeting.invitation, password=password))))

        picture = Path(settings.picture or default_picture(number))
        await attend(session, face, meeting.invitation, finish, source=source, picture=picture, keep_password=keep_password)


@click.command()
@click.argument("meeting")
@_manager
@_ca
@_key
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with settings; flags go before it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def end(meeting: str, config: Path | None, as_json: bool, **flags: str | None) -> None:
    """End a running meeting of yours for everyone, from wherever your API key is."""

    async def work(begin: Begin) -> None:
        settings = load_settings(config, **flags)
        number = _meeting_id(meeting)
        try:
            kept = home.kept(number)
            site, ca = kept.meeting.manager, kept.ca
        except home.NotKept:
            site, ca = _where(settings)
        if settings.manager and settings.ca:
            site, ca = _where(settings)
        async with ManagerApi.connect(site, ca, api_key(settings)) as api:
            session = await api.running_session(number)
            if session is None:
                raise SessionOver(f"You have no running meeting {format_meeting_id(number)}.")
            await api.end(session)
            if not await api.comes_again(number):
                home.forget(number)
        if as_json:
            emit("ended", meeting_id=number)
        else:
            click.echo(f"{format_meeting_id(number)} has ended.", err=True)

    run(work, as_json=as_json)
