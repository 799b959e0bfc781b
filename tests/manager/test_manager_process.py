"""The program: its command line, its start, its end, and what a kill leaves."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from manager.__main__ import main
from manager.errors import SettingsMalformed
from manager.settings import Settings, load_settings
from tests.manager.support import MEETING_KEY, WITHIN, Pki

Start = Callable[..., "Program"]


class Program:
    """A manager in a process of its own."""

    def __init__(self, pki: Pki, directory: Path, *arguments: str) -> None:
        self.log = directory / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "manager", "serve", "--store", str(directory / "manager.db")),
                    *(
                        "--identity",
                        str(pki.root / "manager"),
                        "--api-port",
                        "0",
                        "--node-port",
                        "0",
                        "--web-port",
                        "0",
                        "--json",
                        "--log-json",
                    ),
                    *("--exit-with-parent", *arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())
        context = ssl.create_default_context(cafile=str(pki.ca))
        url = f"https://localhost:{self.ready['api_port']}/api/v1"  # the other name in the certificate
        self.http = httpx.Client(verify=context, base_url=url, timeout=WITHIN, trust_env=False)

    def wait(self) -> int:
        self.http.close()
        code = self.process.wait(WITHIN)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return code


@pytest.fixture
def start(pki: Pki, tmp_path: Path) -> Iterator[Start]:
    running: list[Program] = []

    def begin(*arguments: str) -> Program:
        running.append(Program(pki, tmp_path, *arguments))
        return running[-1]

    yield begin
    for program in running:
        if program.process.poll() is None:
            program.process.kill()
            program.wait()


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_G01_a_meeting_is_found_again_after_a_kill(start: Start, tmp_path: Path) -> None:
    first = start("--tap", str(tmp_path / "tap"))
    assert first.ready == {
        "event": "ready",
        "api_port": first.ready["api_port"],
        "node_port": first.ready["node_port"],
        "site": first.ready["site"],
    }
    key = json.loads(command("add-organizer", "ann", "--json", "--store", str(tmp_path / "manager.db")).stdout)["key"]
    first.http.headers["authorization"] = f"Bearer {key}"
    meeting = first.http.post("/meetings", json={"title": "Weekly", "meeting_key": MEETING_KEY}).json()
    again = command(
        "serve", "--store", str(tmp_path / "manager.db"), "--identity", str(first_identity(first)), "--api-port", "0", "--web-port", "0"
    )
    assert (again.exit_code, "store-in-use" in again.stderr) == (1, True)
    os.kill(first.process.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    second = start()
    answer = second.http.get("/meetings", headers={"authorization": f"Bearer {key}"})
    (found,) = answer.json()["meetings"]
    assert found | {"link": meeting["link"]} == meeting  # the link names the site's port, which is a free one
    second.process.send_signal(signal.SIGTERM)
    assert second.wait() == 0
    log = (tmp_path / "log").read_text()
    assert all(json.loads(line)["event"] for line in log.splitlines())
    for secret in (key, key.removeprefix("parley_"), meeting["invite"], MEETING_KEY):
        assert secret not in log
    assert b"Weekly" in b"".join(file.read_bytes() for file in (tmp_path / "tap").iterdir())


def first_identity(program: Program) -> Path:
    arguments = program.process.args
    assert isinstance(arguments, list)
    return Path(arguments[arguments.index("--identity") + 1])


def test_it_ends_with_its_parent(start: Start) -> None:
    program = start()
    assert program.process.stdin is not None
    program.process.stdin.close()
    assert program.wait() == 0


def test_a_port_in_use_is_named(pki: Pki, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = command(
            *(
                "serve",
                "--store",
                str(tmp_path / "m.db"),
                "--identity",
                str(pki.root / "manager"),
                "--node-port",
                "0",
                "--web-port",
                "0",
                "--api-port",
                port,
            )
        )
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("parley: port-in-use: ")


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    result = command("serve", "--store", str(tmp_path / "m.db"), "--identity", str(tmp_path / "nothing"))
    assert result.exit_code == 1
    assert "pki-unreadable" in result.stderr


@pytest.mark.parametrize(("content", "name"), [(b"no database " * 1000, "store-unavailable"), (None, "store-unavailable")])
def test_a_store_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, name: str) -> None:
    path = tmp_path / "m.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    result = command("add-organizer", "ann", "--store", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert name in result.stderr


def test_organizers_come_and_go(tmp_path: Path) -> None:
    where = ("--store", str(tmp_path / "m.db"))
    added = command("add-organizer", "ann", *where)
    assert added.exit_code == 0
    assert added.stdout.startswith("parley_")
    twice = command("add-organizer", "ann", *where)
    assert (twice.exit_code, "organizer-exists" in twice.stderr) == (1, True)
    assert command("list-organizers", *where).stdout == "ann\n"
    assert command("remove-organizer", "ann", *where).exit_code == 0
    assert command("list-organizers", *where).stdout == "ann  (removed)\n"
    assert json.loads(command("list-organizers", "--json", *where).stdout) == {"name": "ann", "active": False}
    gone = command("remove-organizer", "ann", *where)
    assert (gone.exit_code, "organizer-unknown" in gone.stderr) == (1, True)
    assert command("add-organizer", *where).exit_code == 2
    assert command("add-organizer", "a\nb", *where).exit_code == 1


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "manager.toml"
    file.write_text('store = "from-file.db"\nnode_port = 1\nstranger_rate = 0.5\n')
    chosen = load_settings(file, store="from-flag.db", api_port=None)
    assert (chosen.store, chosen.node_port, chosen.api_port, chosen.stranger_rate) == ("from-flag.db", 1, Settings().api_port, 0.5)
    assert "from-flag" not in repr(chosen)


@pytest.mark.parametrize(
    "text",
    [
        "stor = 'x'",
        "node_port = 'x'",
        "node_port = 70000",
        "stranger_rate = 0",
        "stranger_rate = inf",
        "guest_burst = 0.5",
        "[",
        "\x00",
        "suite = 2",
    ],
)
def test_G34_a_bad_or_unknown_setting_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "manager.toml"
    file.write_text(text)
    with pytest.raises(SettingsMalformed):
        load_settings(file)
    result = command("list-organizers", "--config", str(file))
    assert (result.exit_code, "settings-malformed" in result.stderr) == (1, True)


def test_a_missing_file_of_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsMalformed):
        load_settings(tmp_path / "nothing.toml")
