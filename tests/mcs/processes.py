"""Relays as processes of their own, to be killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import trio

from net.listener import Address
from tests.mcs.raw import PATIENCE, Cluster

ROOT = Path(__file__).parents[2]
_NUMBERS = count()


@dataclass
class RelayProcess:
    process: trio.Process
    address: Address
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def relay_process(cluster: Cluster, name: str, manager: Address, where: Path, *python: str) -> AsyncIterator[RelayProcess]:
    """A relay, ready to be called. `python`: options of the interpreter. It dies with this test in any case."""
    log = where / f"{name}-{next(_NUMBERS)}.log"
    command = [sys.executable, *python, "-m", "mcs", "--json", "--log-json", "--exit-with-parent", "--listen", "127.0.0.1:0"]
    command += ["--identity", str(cluster.relays[name].cert_path.parent), "--manager", f"{manager[0]}:{manager[1]}"]
    with log.open("wb") as errors:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=dict(os.environ)
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = b""
        with trio.fail_after(PATIENCE):
            while not line.endswith(b"\n"):
                part = await process.stdout.receive_some()
                assert part, log.read_text()
                line += part
        host, port = json.loads(line)["addresses"][0]
        yield RelayProcess(process, (host, port), log)
        await process.stdin.aclose()  # its parent is gone, so it stops
        with trio.fail_after(PATIENCE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()
