"""How a password or a whole link comes in: from a prompt without echo, from a file, or from standard input. Never from the command line.

What stands in a command line is shown to every user of the machine, and stays in the shell's history.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

import click

from endpoint.cli.keys import LineEditor, read_lines, single_keys
from endpoint.errors import EndpointError, NoPassword
from endpoint.invitation import MAX_PASSWORD, Invitation, parse_invitation_untrusted
from wire.ids import format_meeting_id

PROMPT: Final = "Password, or the whole link (not shown; Enter if there is none): "
MAX_SECRET: Final = 4096


class LinkInArguments(EndpointError):
    name: ClassVar[str] = "link-in-arguments"
    sentence: ClassVar[str] = (
        "A link with its password does not belong on the command line: others on this machine can see it there, and it is in your "
        "shell's history now, so delete it there. Run `parley join`, with the meeting ID if you like, and paste the link when you are asked."
    )


class OtherMeeting(EndpointError):
    name: ClassVar[str] = "link-of-another-meeting"
    sentence: ClassVar[str] = "The link belongs to another meeting than the one that was named."


class UnreadableSecret(EndpointError):
    name: ClassVar[str] = "secret-unreadable"
    sentence: ClassVar[str] = "The file holds no password and no link."


def parse_target(text: str) -> Invitation:
    """A meeting ID, or a link without its fragment. Raises LinkInArguments, MalformedLink."""
    if "#" in text:
        raise LinkInArguments
    return parse_invitation_untrusted(text)


def read_password_file(path: Path) -> str:
    """The password in a file's one line. Raises UnreadableSecret."""
    password = _read(path)
    if len(password) > MAX_PASSWORD:
        raise UnreadableSecret(f"The password in {path} is longer than {MAX_PASSWORD} characters.")
    return password


def read_link_file(path: Path) -> str:
    """The link in a file's one line. Raises UnreadableSecret."""
    link = _read(path)
    if "/j/" not in link:
        raise UnreadableSecret(f"{path} holds no meeting link.")
    return link


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SECRET + 1).decode()
    except OSError as error:
        raise UnreadableSecret(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UnreadableSecret(f"{path} is no text.") from None
    lines = text.splitlines()
    if len(text) > MAX_SECRET or len(lines) != 1:
        raise UnreadableSecret(f"{path} must hold one line alone.")
    return lines[0]


async def prompted(prompt: str) -> str:
    """One line from the terminal, without echo. A signal may cancel it, and the terminal is as before."""
    with single_keys():
        click.echo(prompt, nl=False, err=True)
        try:
            async with aclosing(read_lines(LineEditor())) as lines:
                return await first_line(lines)
        finally:
            click.echo("", err=True)


async def first_line(lines: AsyncIterator[str]) -> str:
    """The first line of standard input; what follows it is chat and commands. Raises NoPassword if there is none."""
    async for line in lines:
        return line
    raise NoPassword


def answered(target: Invitation | None, text: str) -> Invitation:
    """A password, or a whole link, for the meeting that was named; without a name only a link will do.

    Raises MalformedLink, NoPassword, OtherMeeting.
    """
    if "/j/" not in text and target is not None:
        if len(text) > MAX_PASSWORD:
            raise NoPassword(f"A password has at most {MAX_PASSWORD} characters.")
        return replace(target, password=text or None)
    link = parse_invitation_untrusted(text)
    if link.expected is None and not link.password:
        raise NoPassword("The end of the link is missing: copy the whole link, with everything behind the #.")
    if target is not None and target.meeting != link.meeting:
        raise OtherMeeting(f"The link is for {format_meeting_id(link.meeting)}, not for {format_meeting_id(target.meeting)}.")
    return link
