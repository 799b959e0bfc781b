"""The `parley` command. Commands are loaded when they are called, so that help and refusals are quick.

`manager`, `mcs` and `pki` are programs of their own and replace this one: what holds keys never loads the servers' code, nor they ours.
"""

import importlib
import sys
from typing import Final, NamedTuple

import click


class _Slot(NamedTuple):
    module: str
    function: str
    help: str


COMMANDS: Final[dict[str, _Slot]] = {
    "up": _Slot("endpoint.cli.up", "up", "A whole meeting on this machine, in one command: servers, organizer, screen."),
    "join": _Slot("endpoint.cli.join", "join", "Join a meeting as a guest."),
    "schedule": _Slot("endpoint.cli.organize", "schedule", "Make a meeting: its ID, its link, its password."),
    "host": _Slot("endpoint.cli.organize", "host", "Open a scheduled meeting, organize it and present."),
    "end": _Slot("endpoint.cli.organize", "end", "End a running meeting for everyone."),
    "demo": _Slot("endpoint.cli.demo", "demo", "Run one whole meeting by itself and judge it: is it exact, and can the servers read it?"),
    "manager": _Slot("endpoint.cli.programs", "manager", "The service manager: accounts, meetings, tickets."),
    "mcs": _Slot("endpoint.cli.programs", "mcs", "A relay: forwards what it cannot read."),
    "overlay": _Slot("endpoint.cli.programs", "overlay", "Look at all relays, and the trees of their sessions."),
    "pki": _Slot("endpoint.cli.programs", "pki", "Certificates of the cluster's servers."),
}


class _Lazy(click.Group):
    """A group that knows its commands' names and one line about each, and loads one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        slot = COMMANDS.get(cmd_name)
        if slot is None:
            return None
        command = getattr(importlib.import_module(slot.module), slot.function)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, slot.help) for name, slot in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="parley")
def parley() -> None:
    """Web conferencing that its own servers cannot read.

    Begin with `parley up`, then `parley join` in a second terminal. `parley COMMAND --help` explains a command.

    Exit codes: 0 done, 1 refused or failed (one sentence on standard error says why), 2 wrong usage, 130 interrupted.
    """


def main() -> None:
    """The program."""
    try:
        code = parley.main(prog_name="parley", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
