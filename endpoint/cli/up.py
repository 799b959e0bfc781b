"""`parley up`: a whole meeting on this machine. A fresh cluster, a meeting, its organizer and a screen, and nothing left of them at the end."""

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import click
import trio

from endpoint import home, sdk
from endpoint.cli.attend import attend
from endpoint.cli.faces import choose_face
from endpoint.cli.frame import Begin, run, session_options
from endpoint.cli.organize import default_picture
from endpoint.cli.share import open_share
from endpoint.cluster import Cluster, run_cluster
from endpoint.settings import Settings, load_settings, own_name
from wire.ids import format_meeting_id


@click.command()
@click.option("--title", default="Meeting", show_default=True, help="What the meeting is about; its guests see it, and so does the manager.")
@click.option("--name", help="How others see you.  [the name of your login]")
@click.option(
    "--share",
    metavar="WHAT",
    help="auto, desktop, monitor:NAME, window:TITLE, region:WxH+X+Y, xvfb (a desktop of its own), or a folder of pictures.  [auto]",
)
@click.option("--exclude", metavar="NAMES", help="Programs of the desktop that are never shown, separated by commas; black where they stand.")
@click.option("--display", help="The X11 display to share.  [$DISPLAY]")
@click.option("--picture", metavar="FILE", help="Where the screen is kept as PNG while somebody else presents.  [parley-MEETING.png]")
@click.option("--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="End by itself after so many seconds.")
@session_options
def up(title: str, seconds: float | None, config: Path | None, as_json: bool, verbose: bool, **flags: str | None) -> None:
    """Run a whole meeting on this machine: a manager, two relays, you as its organizer, your screen.

    Guests join with `parley join` in another terminal of this machine. Ctrl-C ends the meeting for everyone; nothing is left of it.
    """

    async def work(begin: Begin) -> None:
        settings = load_settings(config, **flags)
        await run_meeting(settings, title, begin, seconds=seconds, as_json=as_json)

    run(work, as_json=as_json, verbose=verbose)


async def run_meeting(settings: Settings, title: str, begin: Begin, *, seconds: float | None, as_json: bool) -> None:
    """From nothing to a running meeting, until it ends. Raises what stands in the way, by name."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(home.private_run())
        source = await stack.enter_async_context(open_share(settings.share, settings.display, directory, settings.excluded))
        face = choose_face(as_json)
        if not as_json:
            click.echo("Starting a manager and two relays on this machine …", err=True)
        cluster = await stack.enter_async_context(run_cluster(directory))
        (directory / "ca" / "ca.key").unlink()  # every server is enrolled; nobody can be any more
        meeting = await sdk.schedule(cluster.site, title, ca=cluster.ca, key=cluster.key)
        nursery = await stack.enter_async_context(trio.open_nursery())
        session = await stack.enter_async_context(sdk.host(meeting, ca=cluster.ca, key=cluster.key, name=own_name(settings) or "Organizer"))
        nursery.start_soon(cluster.keep_running, face.say)
        announce(directory, cluster, meeting)
        begin(finish := trio.Event())
        if seconds is not None:
            nursery.start_soon(_set_after, seconds, finish)
        if not as_json:  # there the first line is the meeting
            command = sys.argv[0] if "/" in sys.argv[0] and not os.path.isabs(sys.argv[0]) else "parley"  # as it was called, to be copied
            face.say(f"Guests on this machine: {command} join {format_meeting_id(meeting.invitation.meeting)}")
            face.say(f"The site, in a browser of this machine: {cluster.pages}")
        picture = Path(settings.picture or default_picture(meeting.invitation.meeting))
        await attend(session, face, meeting.invitation, finish, source=source, picture=picture)
        nursery.cancel_scope.cancel()


async def _set_after(seconds: float, finish: trio.Event) -> None:
    await trio.sleep(seconds)
    finish.set()


def announce(directory: Path, cluster: Cluster, meeting: sdk.Meeting) -> None:
    """For `parley join` on this machine."""
    running = home.RunningMeeting(meeting.invitation.meeting, cluster.site, str(cluster.ca), os.getpid(), meeting.title)
    home.announce(directory, running)
