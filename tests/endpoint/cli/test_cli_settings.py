"""Settings of an endpoint: flags before the environment before the file, unknown keys refused by name."""

from pathlib import Path

import pytest

from endpoint.settings import KEY_FILE_VARIABLE, NoKey, Settings, SettingsError, api_key, load_settings, own_name


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    (tmp_path / "parley").mkdir()
    return tmp_path / "parley" / "parley.toml"


def test_without_a_file_and_flags_the_defaults_hold() -> None:
    assert load_settings(None) == Settings()


def test_a_flag_goes_before_the_file(config: Path) -> None:
    config.write_text('name = "Olga"\nmanager = "https://meet.example"\n')
    settings = load_settings(None, name="Ana", manager=None)
    assert (settings.name, settings.manager) == ("Ana", "https://meet.example")


def test_the_key_file_may_stand_in_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('key_file = "from-file"\n')
    monkeypatch.setenv(KEY_FILE_VARIABLE, "/from/environment")
    assert load_settings(None).key_file == "/from/environment"
    assert load_settings(None, key_file="flag").key_file == "flag"


def test_paths_in_the_file_are_relative_to_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/olga")
    config.write_text('ca = "ca.crt"\nkey_file = "/etc/key"\npicture = "~/screen.png"\nshare = "./slides"\n')
    settings = load_settings(None)
    assert settings.ca == str(config.parent / "ca.crt")
    assert (settings.key_file, settings.picture) == ("/etc/key", "/home/olga/screen.png")
    assert settings.share == str(config.parent / "slides")
    config.write_text('share = "xvfb"\n')
    assert load_settings(None).share == "xvfb"


@pytest.mark.parametrize("text", ["srp_group = 1024\n", 'cipher = "null"\n', "name = 3\n", "name = [\n", "\x00", "[name]\nx = 1\n"])
def test_what_is_no_setting_is_refused_by_name(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(None)
    assert refused.value.name == "settings-malformed"
    unknown = text.split(" ")[0]
    if unknown in ("srp_group", "cipher"):
        assert unknown in str(refused.value)


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path / "nowhere.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    "site",
    ["http://meet.example", "meet.example", "https://", "https://me@host", "https://h/path", "https://h?x", "https://[::1", "https://h:0"],
)
def test_a_manager_has_a_bare_https_address(site: str) -> None:
    with pytest.raises(SettingsError, match="https://HOST"):
        load_settings(None, manager=site)


@pytest.mark.parametrize("site", ["https://meet.example", "https://127.0.0.1:8443", "https://[::1]:8443", "https://meet.example/"])
def test_a_bare_https_address_is_taken(site: str) -> None:
    assert load_settings(None, manager=site).manager == site


def test_the_key_is_the_one_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("parley_abc\n")
    assert api_key(Settings(key_file=str(path))) == "parley_abc"
    for content in (b"", b"\n", b"two words", b"two\nlines", b"\xff", b"\x1b[0m", b"x" * 1000):
        path.write_bytes(content)
        with pytest.raises(NoKey, match="holds no API key"):
            api_key(Settings(key_file=str(path)))
    with pytest.raises(NoKey, match="cannot be read"):
        api_key(Settings(key_file=str(tmp_path / "nowhere")))
    with pytest.raises(NoKey, match="--key-file"):
        api_key(Settings())


def test_a_person_has_a_name_without_saying_it() -> None:
    assert own_name(Settings(name="Olga")) == "Olga"
    assert own_name(Settings())
