"""What all programs share: logging, dying with their parent, warning of a certificate's end, and how a named error leaves a program.

Exit codes: 0 done; 1 refused or failed by a named error, with one sentence on stderr; 2 wrong usage (click's own).
"""

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TextIO, cast

import click
import structlog
import trio
from cryptography import x509

from net.pki import expiry_warning
from wire.errors import ParleyError

log = structlog.get_logger()
WARN_EVERY: Final = 86_400.0
"""Seconds between two warnings of a certificate's end."""


class _Words:
    """Where the log goes. What cannot be written (the disk is full, the reader has gone) is lost, and ends nothing: no server dies of a
    line of its log, least of all of one that a stranger can cause."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


def configure_logging(json: bool, level: int = logging.INFO) -> None:
    """Events on stderr: JSON lines for a machine, else for a person. Tracebacks show no local variables, since those hold secrets."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Words(sys.stderr))),
        cache_logger_on_first_use=False,
    )


async def exit_with_parent(scope: trio.CancelScope) -> None:
    """Cancels the scope when standard input ends: the parent holds the other end of the pipe, so its death ends it too."""
    descriptor = 0
    while True:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except OSError:
            await trio.lowlevel.checkpoint()  # a file or /dev/null: always readable, so epoll does not take it
        try:
            ended = not os.read(descriptor, 4096)
        except OSError:  # closed from the beginning
            ended = True
        if ended:
            scope.cancel()
            return


async def warn_of_expiry(certificate: x509.Certificate, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
    """Log `certificate-expires` now and once a day from `net.pki.WARN_DAYS` days before the end on: a server may run longer than it lasts."""
    while True:
        if sentence := expiry_warning(certificate, now()):
            log.warning("certificate-expires", sentence=sentence)
        await trio.sleep(WARN_EVERY)


async def until_told_to_stop(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Returns at SIGINT or SIGTERM: the orderly end of a server."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            return


def run(main: Callable[[], Awaitable[object]]) -> None:
    """A command's async part. A named error becomes one sentence on stderr and exit code 1; Ctrl-C becomes exit code 130.

    Several errors at once (an exception group) are told one a line. Anything else is a defect and keeps its traceback.
    """
    try:
        trio.run(main)
    except* ParleyError as group:
        told = dict.fromkeys(str(error) for error in _leaves(group))
        for sentence in told:
            click.echo(f"parley: {sentence}", err=True)
        sys.exit(1)
    except* KeyboardInterrupt:
        sys.exit(130)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
