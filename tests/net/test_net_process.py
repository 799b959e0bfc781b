"""What all programs share, tried in real processes."""

import json
import logging
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import IO

import pytest
import structlog
import trio
import trio.testing

from net.pki import WARN_DAYS
from net.process import WARN_EVERY, warn_of_expiry
from tests.net.cluster import Cluster

PATIENCE = 20.0


def program(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


@contextmanager
def started(text: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """A running program, its input and its output. It is killed if it takes too long, so that no read waits for ever."""
    with subprocess.Popen(program(text), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            yield process, process.stdin, process.stdout
        finally:
            watchdog.cancel()
            watchdog.join()
            process.kill()


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program(text), check=False, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


UNTIL_STDIN_ENDS = """
    import trio
    from net.process import exit_with_parent

    async def main():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exit_with_parent, scope)
                print("ready", flush=True)
                await trio.sleep_forever()
        print("ended", flush=True)

    trio.run(main)
"""


def test_a_program_ends_when_its_standard_input_does() -> None:
    with started(UNTIL_STDIN_ENDS) as (child, stdin, stdout):
        assert stdout.readline() == "ready\n"
        stdin.write("words mean nothing\n")
        stdin.flush()
        assert child.poll() is None
        stdin.close()
        assert stdout.readline() == "ended\n"
        assert child.wait(PATIENCE) == 0


def test_standard_input_that_is_no_pipe_has_ended() -> None:
    assert run(UNTIL_STDIN_ENDS).stdout == "ready\nended\n"


def test_standard_input_that_is_closed_has_ended() -> None:
    done = run(f"import os; os.close(0)\n{textwrap.dedent(UNTIL_STDIN_ENDS)}")
    assert done.stdout == "ready\nended\n"


def test_a_named_error_is_one_sentence_and_exit_code_1() -> None:
    done = run(
        """
        from net.listener import PortInUse
        from net.process import run

        async def main():
            raise PortInUse

        run(main)
        """
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "parley: port-in-use: Another program listens on this port; stop it, or choose another port.\n"


def test_named_errors_in_a_group_are_told_once_each() -> None:
    done = run(
        """
        import trio
        from net.listener import PortForbidden, PortInUse
        from net.process import run

        async def fail(error):
            raise error

        async def main():
            async with trio.open_nursery() as outer:
                for error in (PortInUse, PortForbidden, PortInUse):
                    outer.start_soon(fail, error)

        run(main)
        """
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["port-forbidden", "port-in-use"]


def test_a_defect_keeps_its_traceback() -> None:
    done = run(
        """
        from net.process import run

        async def main():
            raise ZeroDivisionError("a defect")

        run(main)
        """
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "a defect" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_is_stopped_by_a_signal(number: signal.Signals) -> None:
    text = """
        import trio
        from net.process import run, until_told_to_stop

        async def main():
            async with trio.open_nursery() as nursery:
                await nursery.start(announced)

        async def announced(task_status):
            async with trio.open_nursery() as nursery:
                async def wait(task_status):
                    await until_told_to_stop(task_status)
                    print("orderly", flush=True)
                await nursery.start(wait)
                print("ready", flush=True)
                task_status.started()

        run(main)
    """
    with started(text) as (process, _, stdout):
        assert stdout.readline() == "ready\n"
        process.send_signal(number)
        assert stdout.read() == "orderly\n"
        assert process.wait(PATIENCE) == 0


LOGGING = """
    import structlog
    from net.process import configure_logging

    configure_logging(json=%s, level=%d)
    log = structlog.get_logger()

    def work(token):
        raise RuntimeError("a defect")

    log.debug("too-small")
    log.info("started", port=8200)
    try:
        work("a-very-secret-value")
    except RuntimeError:
        log.exception("failed")
"""


async def test_a_server_that_runs_for_months_warns_of_its_certificates_end(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    certificate = cluster.relay.certificate
    began, days = trio.current_time(), (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days
    with structlog.testing.capture_logs() as logged, trio.move_on_after((days + 1.5) * WARN_EVERY):
        await warn_of_expiry(certificate, lambda: certificate.not_valid_before_utc + timedelta(seconds=trio.current_time() - began))
    assert {entry["event"] for entry in logged} == {"certificate-expires"}
    assert len(logged) == WARN_DAYS + 1  # each of the last days, and the day after
    assert "in 20 days" in logged[0]["sentence"]
    assert "expired on" in logged[-1]["sentence"]


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    """The disk is full, or whoever read the log is gone; any caller can make a server log."""
    text = """
        import structlog
        from net.process import configure_logging
        for as_json in (True, False):
            configure_logging(as_json)
            for number in range(2000):
                structlog.get_logger().warning("caller-refused", times=number)
        print("it goes on", flush=True)
    """
    with open("/dev/full", "w") as full:
        done = subprocess.run(program(text), check=False, stdout=subprocess.PIPE, stderr=full, text=True, timeout=PATIENCE)
    assert done.stdout == "it goes on\n"
    with subprocess.Popen(program(text), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.close()
        assert process.stdout.read() == "it goes on\n"


def test_events_are_json_lines_for_a_machine() -> None:
    done = run(LOGGING % (True, logging.INFO))
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(event["event"], event["level"]) for event in events] == [("started", "info"), ("failed", "error")]
    assert events[0]["port"] == 8200
    assert "RuntimeError: a defect" in events[1]["exception"]
    assert done.stdout == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_show_no_local_variables(as_json: bool) -> None:
    done = run(LOGGING % (as_json, logging.DEBUG))
    assert "RuntimeError: a defect" in done.stderr
    assert "too-small" in done.stderr
    assert done.stderr.count("a-very-secret-value") <= 1  # the source line alone, never the value of `token`
    assert "token=" not in done.stderr
