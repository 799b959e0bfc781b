"""How a password or a link comes in, and how it does not."""

from pathlib import Path

import pytest

from endpoint.cli.join import locate
from endpoint.cli.secrets_in import (
    LinkInArguments,
    OtherMeeting,
    UnreadableSecret,
    answered,
    parse_target,
    read_link_file,
    read_password_file,
)
from endpoint.errors import MalformedLink, NoManager, NoPassword
from endpoint.invitation import Badge, Invitation
from endpoint.settings import Settings
from wire.ids import MeetingId

NUMBER = MeetingId(123456789)
BARE = "https://meet.example/j/123456789/0123456789abcdef"
LINK = BARE + "#canyon-purse-alien-sound." + "a" * 26


@pytest.mark.parametrize("text", [LINK, "#", "123-456-789#x", BARE + "#"])
def test_a_link_with_its_password_is_refused_in_arguments(text: str) -> None:
    with pytest.raises(LinkInArguments) as refused:
        parse_target(text)
    assert "history" in str(refused.value)
    assert "canyon" not in str(refused.value)


def test_an_id_or_a_bare_link_names_the_meeting() -> None:
    assert parse_target("123-456-789") == Invitation(NUMBER)
    assert parse_target(BARE) == Invitation(NUMBER, "https://meet.example", "0123456789abcdef")
    with pytest.raises(MalformedLink):
        parse_target("12-34")


def test_the_answer_is_a_password_or_a_whole_link() -> None:
    typed = answered(Invitation(NUMBER), "canyon-purse-alien-sound")
    assert (typed.password, typed.badge) == ("canyon-purse-alien-sound", Badge.UNLESS_INVITEE)
    assert answered(Invitation(NUMBER), "").badge is Badge.IMPERSONABLE
    pasted = answered(Invitation(NUMBER), f"  {LINK} ")
    assert (pasted.password, pasted.badge) == ("canyon-purse-alien-sound", Badge.OPERATOR_PROOF)
    assert answered(None, LINK) == pasted


def test_what_is_neither_is_refused_by_name() -> None:
    with pytest.raises(NoPassword, match="end of the link"):
        answered(Invitation(NUMBER), BARE)
    with pytest.raises(OtherMeeting, match="not for 987-654-321"):
        answered(Invitation(MeetingId(987654321)), LINK)
    with pytest.raises(MalformedLink):
        answered(None, "canyon-purse-alien-sound")
    with pytest.raises(NoPassword, match="at most"):
        answered(Invitation(NUMBER), "x" * 300)


def test_files_hold_one_line(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("canyon purse\n")
    assert read_password_file(path) == "canyon purse"
    path.write_text(LINK + "\n")
    assert read_link_file(path) == LINK
    for content in (b"", b"a\nb\n", b"\xff\xfe", b"x" * 10_000):
        path.write_bytes(content)
        with pytest.raises(UnreadableSecret):
            read_password_file(path)
    path.write_text("no link")
    with pytest.raises(UnreadableSecret, match="no meeting link"):
        read_link_file(path)
    with pytest.raises(UnreadableSecret, match="cannot be read"):
        read_link_file(tmp_path / "nowhere")


def test_a_meeting_is_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(NoManager, match="123-456-789"):
        locate(Invitation(NUMBER), Settings())
    with pytest.raises(NoManager, match="--ca"):
        locate(answered(None, LINK), Settings())
    found, ca = locate(answered(None, LINK), Settings(ca="ca.crt"))
    assert (found.site, ca) == ("https://meet.example", Path("ca.crt"))
    found, _ = locate(answered(None, LINK), Settings(ca="ca.crt", manager="https://other.example/"))
    assert found.site == "https://other.example"
