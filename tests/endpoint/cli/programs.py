"""`parley` as a process: what it says as events, what is told to it, and what it leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

WITHIN: Final = 120.0
"""Seconds after which a test that waits has failed; a busy machine starts servers slowly."""
Said = dict[str, Any]


@dataclass
class Program:
    """A running `parley … --json`."""

    process: trio.Process
    said: list[Said] = field(default_factory=list)
    stderr: bytes = b""
    _changed: trio.Event = field(default_factory=trio.Event)

    async def tell(self, do: str, **more: str) -> None:
        await self.write(json.dumps({"do": do, **more}))

    async def write(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")

    def all(self, event: str) -> list[Said]:
        return [said for said in self.said if said["event"] == event]

    def chat(self) -> list[tuple[str, str]]:
        return [(said["name"], said["text"]) for said in self.all("chat")]

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.move_on_after(WITHIN):
            while not holds():
                await self._changed.wait()
            return
        raise AssertionError("it did not come")  # `place` adds what all programs said

    async def event(self, event: str, **facts: Any) -> Said:
        """The first one that has all these facts."""

        def found() -> list[Said]:
            return [said for said in self.all(event) if all(said.get(key) == value for key, value in facts.items())]

        await self.until(found)
        return found()[0]

    async def ended(self) -> int:
        with trio.fail_after(WITHIN):
            return await self.process.wait()

    async def read(self) -> None:
        """For its nursery: until the program has closed both."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_errors)
            assert self.process.stdout is not None
            held = b""
            async for part in self.process.stdout:
                *lines, held = (held + part).split(b"\n")
                self.said += [json.loads(line) for line in lines]
                self._news()
        self._news()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for part in self.process.stderr:
            self.stderr += part

    def _news(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@dataclass
class Place:
    """Where programs run: a state directory and a current one of their own."""

    directory: Path
    nursery: trio.Nursery
    started: list[Program] = field(default_factory=list)

    @property
    def runs(self) -> list[Path]:
        return [path for path in (self.directory / "state" / "parley" / "up").iterdir() if path.is_dir()]

    def environment(self) -> dict[str, str]:
        ours = {"XDG_STATE_HOME": str(self.directory / "state"), "XDG_CONFIG_HOME": str(self.directory / "config")}
        return {**{name: value for name, value in os.environ.items() if name not in ("DISPLAY", "PARLEY_API_KEY_FILE")}, **ours}

    async def start(self, *arguments: str, as_json: bool = True) -> Program:
        command = [sys.executable, "-P", "-m", "endpoint.cli", *arguments, *(["--json"] if as_json else [])]
        pipe = subprocess.PIPE
        process = await trio.lowlevel.open_process(
            command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=self.directory, env=self.environment(), process_group=0
        )
        program = Program(process)
        self.started.append(program)
        self.nursery.start_soon(program.read)
        return program

    def secret(self, name: str, content: str) -> str:
        path = self.directory / name
        path.write_text(content + "\n")
        path.chmod(0o600)
        return str(path)


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    """Whatever was started there is killed in the end, and its children follow by themselves. A failure tells what all programs said."""
    async with trio.open_nursery() as nursery:
        here = Place(directory, nursery)
        try:
            yield here
        except BaseException as error:
            for program in here.started:
                error.add_note(f"{program.process.args!r}: {program.said} {program.stderr.decode(errors='replace')}")
            raise
        finally:
            with trio.CancelScope(shield=True):
                for program in here.started:
                    program.process.kill()
                    await program.process.wait()


def children(process: int) -> dict[int, str]:
    """Every descendant that lives now: its number and its command line."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found: set[int] = set()
    while True:
        more = {child for child, parent in parents.items() if parent == process or parent in found} - found
        if not more:
            return {child: command_line(child) for child in found}
        found |= more


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def alive(process: int, command: str) -> bool:
    """Whether that very program still runs."""
    return command_line(process) == command
