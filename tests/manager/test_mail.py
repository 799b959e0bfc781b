"""Letters: to a real mail server, into a folder, and what the log says of them."""

import email
import email.policy
import socket
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from manager.errors import MailFailed
from manager.mail import QUEUE, Letter, Mail
from manager.settings import load_settings

LETTER = Letter("invite", "ann@example.org", "canary\r\nBcc: eve@example.org", "Été – canary body\n", b"BEGIN:VCALENDAR\r\n", "CANCEL")


class Postbox:
    """What an SMTP server took."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"


def test_a_letter_reaches_a_mail_server_and_nobody_else() -> None:
    box = Postbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        Mail(load_settings(None, smtp_host="127.0.0.1", smtp_port=port, smtp_security="none", mail_from="p@example.org")).deliver_now(LETTER)
    finally:
        controller.stop()
    ((sender, receivers, content),) = box.taken
    assert (sender, receivers) == ("p@example.org", ["ann@example.org"])
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["Bcc"] is None  # a line break in a title begins no header
    assert message["Subject"] == "canary Bcc: eve@example.org"
    text, entry = message.iter_parts()
    assert text.get_content().strip() == "Été – canary body"
    assert (entry.get_content_type(), entry.get_param("method")) == ("text/calendar", "CANCEL")


def test_without_a_mail_server_letters_are_files_of_ones_own(tmp_path: Path) -> None:
    Mail(load_settings(None, mail_folder=str(tmp_path / "mail"))).deliver_now(LETTER)
    (file,) = (tmp_path / "mail").iterdir()
    assert (file.suffix, file.stat().st_mode & 0o777) == (".eml", 0o600)
    assert email.message_from_bytes(file.read_bytes())["To"] == "ann@example.org"


def test_a_server_that_is_not_there_is_named_without_telling_the_letter() -> None:
    mail = Mail(load_settings(None, smtp_host="127.0.0.1", smtp_port=1))
    with pytest.raises(MailFailed) as failed:
        mail.deliver_now(LETTER)
    assert "canary" not in str(failed.value) + repr(LETTER)
    assert "ann@" not in str(failed.value) + repr(LETTER)


def test_letters_that_wait_are_bounded() -> None:
    mail = Mail(load_settings(None))
    for _ in range(QUEUE):
        mail.post(LETTER)
    with pytest.raises(MailFailed):
        mail.post(LETTER)
