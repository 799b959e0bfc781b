"""What an endpoint keeps on disk: private, whole or not at all, and gone with the run that it belongs to."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crypto.signing import SigningKey
from endpoint import home
from endpoint.invitation import invitation_for
from endpoint.sdk import Meeting
from wire.ids import MeetingId

NUMBER = MeetingId(123456789)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "parley"


def made(password: str = "canyon-purse-alien-sound") -> home.KeptMeeting:
    key = SigningKey.generate()
    invitation = invitation_for(NUMBER, "https://meet.example", "0123456789abcdef", password, key.public)
    return home.KeptMeeting(Meeting(invitation, "Weekly", key.seed, "https://meet.example:8443"), Path("/etc/parley/ca.crt"))


@pytest.mark.parametrize("password", ["canyon-purse-alien-sound", "", "ключ #1"])
def test_a_scheduled_meeting_comes_back_as_it_was(password: str) -> None:
    kept = made(password)
    home.keep(kept)
    back = home.kept(NUMBER)
    assert (back.meeting.title, back.meeting.seed, back.ca) == (kept.meeting.title, kept.meeting.seed, kept.ca)
    assert back.meeting.manager == kept.meeting.manager
    assert back.meeting.invitation.link() == kept.meeting.invitation.link()
    assert back.meeting.invitation.badge is kept.meeting.invitation.badge


def test_it_is_the_users_alone(state: Path) -> None:
    path = home.keep(made())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [path.name for path in path.parent.iterdir()] == [f"{NUMBER}.json"]


def test_no_secret_shows_in_a_repr() -> None:
    kept = made()
    assert "canyon" not in repr(kept)
    assert kept.meeting.seed.hex() not in repr(kept)
    assert repr(kept.meeting.seed) not in repr(kept)


def test_an_unknown_a_forgotten_and_a_damaged_meeting_are_named() -> None:
    with pytest.raises(home.NotKept, match="123-456-789"):
        home.kept(NUMBER)
    path = home.keep(made())
    home.forget(NUMBER)
    home.forget(NUMBER)
    with pytest.raises(home.NotKept):
        home.kept(NUMBER)
    for damage in (b"", b"{}", b"\xff", b'{"meeting_id": 1}'):
        path.write_bytes(damage)
        with pytest.raises(home.HomeError, match="damaged"):
            home.kept(NUMBER)
    kept = home.keep(made())
    kept.write_text(kept.read_text().replace('"seed": "', '"seed": "00'))
    with pytest.raises(home.HomeError, match="damaged"):
        home.kept(NUMBER)


def test_a_place_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(file))
    with pytest.raises(home.HomeError, match="XDG_STATE_HOME"):
        home.keep(made())
    with pytest.raises(home.HomeError, match="XDG_STATE_HOME"), home.private_run():
        pass


def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.keep(made())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(home.HomeError, match="No space left"):
        home.keep(made())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def announced(directory: Path, number: int = NUMBER) -> None:
    home.announce(directory, home.RunningMeeting(number, "https://127.0.0.1:1", str(directory / "ca.crt"), os.getpid(), "Weekly"))


def test_a_run_is_found_while_it_lives_and_gone_afterwards(state: Path) -> None:
    with home.private_run() as first, home.private_run() as second:
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        assert home.running_meetings() == []
        announced(first, 111111111)
        announced(second, 222222222)
        assert {running.meeting_id for running in home.running_meetings()} == {111111111, 222222222}
        assert stat.S_IMODE((first / home.RUNNING).stat().st_mode) == 0o600
    assert home.running_meetings() == []
    assert [path.name for path in (state / "up").iterdir()] == [".lock"]


def test_what_a_killed_run_left_is_removed_by_the_next_whatever_its_number_says(state: Path) -> None:
    code = (
        "import os, signal; from endpoint import home; context = home.private_run(); directory = context.__enter__();"
        "(directory / 'sub').mkdir(); (directory / 'sub' / 'big').touch();"
        # its process number is ours: alive, by a mere look at the number
        f"home.announce(directory, home.RunningMeeting({NUMBER}, 'https://127.0.0.1:1', 'ca', {os.getpid()}));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    left = [path for path in (state / "up").iterdir() if path.is_dir()]
    assert len(left) == 1
    assert home.running_meetings() == []
    with home.private_run() as fresh:
        assert [path for path in (state / "up").iterdir() if path.is_dir()] == [fresh]


def test_a_run_that_died_before_its_lock_is_removed_too(state: Path) -> None:
    (state / "up" / "half").mkdir(parents=True)
    with home.private_run():
        assert not (state / "up" / "half").exists()


def test_a_damaged_announcement_is_passed_over() -> None:
    with home.private_run() as directory:
        (directory / home.RUNNING).write_bytes(b"[]")
        assert home.running_meetings() == []


def test_a_relative_state_home_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert home.state_directory() == Path.home() / ".local" / "state" / "parley"
