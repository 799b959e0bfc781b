"""Settings from a file and flags, and how the program refuses."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from mcs.__main__ import mcs
from mcs.settings import Settings, SettingsError, parse_address, read_settings
from tests.mcs.raw import Cluster


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8200", ("127.0.0.1", 8200)),
        ("[::1]:443", ("::1", 443)),
        (":80", ("", 80)),
        ("8200", ("", 8200)),
        ("relay.example.org:0", ("relay.example.org", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:99999", "host:-1", "::1:80", "host:٣"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SettingsError, match="is no address"):
        parse_address(text)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mcs.toml"
    file.write_text('identity = "here"\nlisten = ["0.0.0.0:8200", ":443"]\nmanagers = ["m:9000"]\nregion = "north"\n')
    found = read_settings(file, {"identity": None, "listen": (), "region": "south", "tap": Path("tap")})
    assert found == Settings(
        identity=Path("here"),
        listen=(("0.0.0.0", 8200), ("", 443)),
        managers=(("m", 9000),),
        region="south",
        tap=Path("tap"),
    )


@pytest.mark.parametrize("text", ["listen = 3", "= x", 'listen = ["nowhere"]\nidentity = "x"', 'identity = "x"\nlistn = [":8200"]', ""])
def test_a_file_that_says_nothing_sensible(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mcs.toml"
    file.write_text(text)
    with pytest.raises(SettingsError):
        read_settings(file, {})
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(tmp_path / "absent.toml", {})


def test_G34_no_cryptographic_parameter_is_a_setting() -> None:
    assert set(Settings.__dataclass_fields__) == {"identity", "listen", "advertise", "managers", "peers", "metrics_port", "region", "tap"}


def test_refusals_have_a_sentence_and_code_1(cluster: Cluster, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        result = CliRunner().invoke(mcs, list(arguments))
        assert result.exit_code == 1, result.output
        return result.output

    identity = str(cluster.relays["relay-a"].cert_path.parent)
    assert "settings-malformed" in said()
    assert "pki-unreadable" in said("--identity", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "port-in-use" in said("--identity", identity, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")


def test_wrong_usage_has_code_2() -> None:
    assert CliRunner().invoke(mcs, ["--nonsense"]).exit_code == 2
