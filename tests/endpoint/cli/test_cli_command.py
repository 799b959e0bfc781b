"""The command itself: help, slots, what a person can type, and what cannot be set."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.cli import COMMANDS, parley
from endpoint.cli.commands import COMMANDS as TYPED
from endpoint.cli.commands import MalformedOrder, Order, json_order_untrusted, typed_order
from endpoint.settings import Settings

ROOT = Path(__file__).parents[3]
ENDPOINT = ("up", "join", "schedule", "host", "end")


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "endpoint.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, stdin=subprocess.DEVNULL, check=False)


def test_help_names_every_command_and_loads_none() -> None:
    code = (
        "import sys; sys.argv = ['parley', '--help']; from endpoint.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: assert not left.code\n"
        "loaded = {'trio', 'numpy', 'rich.live', 'httpx', 'endpoint.session', 'cryptography'} & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ENDPOINT)
def test_every_command_explains_itself(name: str) -> None:
    command = parley.get_command(click.Context(parley), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or (isinstance(parameter, click.Option) and parameter.help), parameter.name


@pytest.mark.parametrize(("name", "says"), [("manager", "add-organizer"), ("mcs", "--identity"), ("pki", "create-ca")])
def test_servers_are_programs_of_their_own_and_never_loaded(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "manager").mkdir()  # a folder of that name where one stands is not taken for the program
    (tmp_path / "manager" / "__main__.py").write_text("print('not me')")
    shown = run(name, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert f"Usage: parley {name}" in shown.stdout
    assert says in shown.stdout


def test_an_unknown_command_and_a_wrong_option_are_wrong_usage() -> None:
    for arguments in (["nonsense"], ["up", "--nonsense"], ["schedule"], ["join", "--password-file", "a", "--link-file", "b"]):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert "Usage: parley" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_link_in_the_arguments_is_refused_by_name_and_not_repeated() -> None:
    done = run("join", "https://meet.example/j/123456789/0123456789abcdef#canyon-purse-alien-sound." + "a" * 26)
    assert done.returncode == 1
    assert done.stderr.startswith("parley: link-in-arguments: ")
    assert "history" in done.stderr
    assert "canyon" not in done.stderr + done.stdout


def test_G34_nothing_that_can_be_set_is_cryptographic() -> None:
    """All that can be set, by name. Whoever adds a setting adds it here, and thinks."""
    flags = {}
    for name in ENDPOINT:
        command = parley.get_command(click.Context(parley), name)
        assert command is not None
        flags[name] = {parameter.name for parameter in command.params}
    session = {"config", "as_json", "verbose"}
    assert flags == {
        "up": {"title", "name", "share", "exclude", "display", "picture", "seconds"} | session,
        "join": {"meeting", "name", "picture", "share", "exclude", "display", "password_file", "link_file", "manager", "ca"} | session,
        "schedule": {"title", "starts", "zone", "length", "repeat", "times", "adopt", "password_file", "no_password"}
        | {"manager", "ca", "key_file", "config", "as_json"},
        "host": {"meeting", "name", "share", "exclude", "display", "picture", "key_file"} | session,
        "end": {"meeting", "manager", "ca", "key_file", "config", "as_json"},
    }
    assert set(Settings.__struct_fields__) == {"name", "manager", "ca", "key_file", "share", "exclude", "display", "picture"}
    read = set()
    for package in ("crypto", "wire", "net", "endpoint", "mcs", "manager"):
        for path in (ROOT / package).rglob("*.py"):
            source = path.read_text()
            read |= set(re.findall(r"environ(?:\.get\(|\[)\s*([A-Za-z_\"]+)", source)) | set(re.findall(r"getenv\(\s*([A-Za-z_\"]+)", source))
            assert not re.search(r"envvar=", source), path
    assert read <= {'"XDG_STATE_HOME"', '"XDG_CONFIG_HOME"', "KEY_FILE_VARIABLE", '"DISPLAY"'}


def test_G34_a_parameter_in_the_file_or_as_a_flag_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "parley.toml"
    config.write_text('cipher = "null"\n')
    done = run("join", "123-456-789", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr.startswith("parley: settings-malformed: ")
    assert "cipher" in done.stderr
    assert run("join", "123-456-789", "--srp-group", "1024").returncode == 2


def test_what_is_typed_is_chat_or_a_command() -> None:
    assert typed_order("  hello /pause ") == Order("chat", "hello /pause")
    assert typed_order("/mute Ana Lena") == Order("mute", name="Ana Lena")
    assert typed_order("/PAUSE") == Order("pause")
    assert typed_order("//shrug") == Order("chat", "/shrug")
    assert typed_order("/chat /mute is a command") == Order("chat", "/mute is a command")
    assert typed_order("   ") is None
    assert typed_order("/") == Order("")


def test_an_order_is_one_object() -> None:
    assert json_order_untrusted('{"do": "chat", "text": "hi"}') == Order("chat", "hi")
    assert json_order_untrusted("  ") is None
    for line in ("hello", "[]", '{"text": "x"}', '{"do": 1}', '{"do": "chat", "txt": "x"}', "[" * 10_000, "{", "\ud800"):
        with pytest.raises(MalformedOrder):
            json_order_untrusted(line)


@given(st.text(max_size=40))
def test_any_line_is_an_order_or_malformed(line: str) -> None:
    typed_order(line)
    with contextlib.suppress(MalformedOrder):
        json_order_untrusted(line)


def test_commands_of_the_organizer_are_marked() -> None:
    assert {name for name, command in TYPED.items() if not command.host} == {
        "pause", "resume", "share", "unshare", "lend", "take", "view", "leave", "chat", "whisper", "raise-hand", "ask-present", "ask-control",
        "rename", "present", "stop", "accept", "decline", "take-over",
    }  # fmt: skip
