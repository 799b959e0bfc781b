"""Manager, relay and certificates: programs of their own, which replace this process.

Only what holds the keys may load the code that opens packets, and it loads no server: so these are started, never imported.
"""

import os
import sys
from typing import NoReturn

import click

_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False, "help_option_names": []}


def _become(module: str, arguments: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a folder named like the module in the current directory is not taken for it
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606  # no shell is wanted


@click.command(context_settings=_PASSED_ON)
@click.pass_context
def manager(ctx: click.Context) -> None:
    """The service manager: accounts, meetings, tickets."""
    _become("manager", ctx.args)


@click.command(context_settings=_PASSED_ON)
@click.pass_context
def mcs(ctx: click.Context) -> None:
    """A relay: forwards what it cannot read."""
    _become("mcs", ctx.args)


@click.command(context_settings=_PASSED_ON)
@click.pass_context
def pki(ctx: click.Context) -> None:
    """Certificates of the cluster's servers."""
    _become("net.pki_cli", ctx.args)


@click.command(context_settings=_PASSED_ON)
@click.pass_context
def overlay(ctx: click.Context) -> None:
    """All relays, and the trees of their sessions."""
    _become("mcs", ["overlay", *ctx.args])
