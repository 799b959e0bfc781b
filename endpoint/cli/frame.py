"""What every command that runs a session has around it: logging, signals, and how a named error leaves the program.

SIGINT (Ctrl-C), SIGTERM and SIGHUP end a session in order: what must be said before the end is said, within a few seconds. Exit codes:
0 done, 1 a named error with one sentence on standard error, 130 interrupted before there was anything to end.
"""

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import click
import trio

from crypto.errors import CryptoError
from endpoint.cli.faces import emit
from endpoint.screen.picture import ScreenError
from endpoint.sdk import leaves
from endpoint.text import clean_line
from net.process import configure_logging
from wire.errors import ParleyError

NAMED = (ParleyError, CryptoError, ScreenError)


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that all of them have."""
    options = (
        click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with settings; flags go before it."),
        click.option("--json", "as_json", is_flag=True, help="Lines of JSON: events on standard output, orders on standard input."),
        click.option("--verbose", is_flag=True, help="Log on standard error what happens inside."),
    )
    for option in reversed(options):
        command = option(command)
    return command


class Begin(Protocol):
    """From now on the first signal sets this event, and the work ends in order; a second one cancels it. `must_ask` is called at each Ctrl-C
    before: true if it asked the person instead, and nothing is to end yet."""

    def __call__(self, finish: trio.Event, must_ask: Callable[[], bool] = bool) -> None: ...


Work = Callable[[Begin], Awaitable[object]]
"""A command's async part."""


def run(work: Work, *, as_json: bool = False, verbose: bool = False) -> None:
    """Run it, and leave the program if its outcome is not plain success."""
    configure_logging(json=False, level=logging.INFO if verbose else logging.CRITICAL)
    try:
        code = trio.run(_until_signalled, work)
    except* NAMED as group:
        named = {(error.name, _sentence(error)): None for error in leaves(group)}  # type: ignore[attr-defined]  # all of NAMED have one
        for name, sentence in named:
            if as_json:
                emit("error", name=name, sentence=sentence)
            click.echo(f"parley: {name}: {sentence}", err=True)
        sys.exit(1)
    except* BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except* KeyboardInterrupt:
        sys.exit(130)
    if code:
        sys.exit(code)


def _sentence(error: BaseException) -> str:
    """Fit for a terminal: some of it may be a server's words."""
    name, sentence = getattr(error, "name", ""), getattr(error, "sentence", "")
    return clean_line(str(error).removeprefix(f"{name}: ") or sentence)


async def _until_signalled(work: Work) -> int:
    signalled = False
    ending: trio.Event | None = None
    asks: Callable[[], bool] = bool

    def begin(finish: trio.Event, must_ask: Callable[[], bool] = bool) -> None:
        nonlocal ending, asks
        ending, asks = finish, must_ask

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                nonlocal signalled
                async for number in signals:
                    signalled = True
                    if ending is None or ending.is_set():
                        scope.cancel()
                    elif number != signal.SIGINT or not asks():
                        ending.set()

            nursery.start_soon(listen)
            with trio.CancelScope() as scope:
                await work(begin)
            nursery.cancel_scope.cancel()
    return 130 if signalled and ending is None else 0
