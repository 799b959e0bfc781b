"""Letters on their way out: through a mail server, or into a folder of `.eml` files where there is none.

Who hands in a letter does not wait for the mail server, so that the time of an answer tells nobody whether a letter was written. One task
delivers them in order, tries each three times, and says what became of it by the letter's kind: never to whom, nor what it says. A letter that
waits when the manager is killed is lost; everything that is sent can be asked for again.
"""

import os
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final

import structlog
import trio

from manager.errors import MailFailed, SettingsMalformed
from manager.settings import Settings

WITHIN: Final = 30.0
"""Seconds for each step of SMTP."""
QUEUE: Final = 1000
TRIES: Final = 3
PAUSE: Final = 20.0
"""Seconds between two tries."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Letter:
    """`kind`: a word for the log. `calendar`: an iCalendar object, with its method."""

    kind: str
    to: str = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    calendar: bytes | None = field(default=None, repr=False)
    method: str = "REQUEST"


class Mail:
    """Made once; `run` delivers. Raises `SettingsMalformed` for a password file that cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._password = _read_password(settings.smtp_password_file) if settings.smtp_host and settings.smtp_password_file else ""
        self._send, self._receive = trio.open_memory_channel[Letter](QUEUE)
        self.failed = 0

    def post(self, letter: Letter) -> None:
        """Hand in a letter. Raises `MailFailed` if too many wait."""
        try:
            self._send.send_nowait(letter)
        except trio.WouldBlock:
            log.warning("mail-queue-full", kind=letter.kind)
            raise MailFailed(retry_after=60.0) from None

    async def run(self) -> None:
        """Deliver until cancelled."""
        if not self._settings.smtp_host:
            log.warning("mail-goes-to-a-folder", folder=self._settings.mail_folder)
        async for letter in self._receive:
            await self._deliver(letter)

    async def _deliver(self, letter: Letter) -> None:
        for left in reversed(range(TRIES)):
            try:
                await trio.to_thread.run_sync(self.deliver_now, letter, abandon_on_cancel=True)
            except MailFailed as failed:
                log.warning("mail-failed", kind=letter.kind, reason=failed.detail, tries_left=left)
                if left:
                    await trio.sleep(PAUSE)
            else:
                log.info("mail-sent", kind=letter.kind)
                return
        self.failed += 1

    def deliver_now(self, letter: Letter) -> None:
        """In this thread. Raises `MailFailed`, whose detail names neither address nor content."""
        message = compose(letter, self._settings.mail_from)
        if self._settings.smtp_host:
            self._by_smtp(message)
        else:
            self._into_folder(message)

    def _by_smtp(self, message: EmailMessage) -> None:
        chosen = self._settings
        context = ssl.create_default_context()
        try:
            if chosen.smtp_security == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(chosen.smtp_host, chosen.smtp_port, timeout=WITHIN, context=context)
            else:
                server = smtplib.SMTP(chosen.smtp_host, chosen.smtp_port, timeout=WITHIN)
            with server:
                if chosen.smtp_security == "starttls":
                    server.starttls(context=context)
                if chosen.smtp_user:
                    server.login(chosen.smtp_user, self._password)
                server.send_message(message)
        except smtplib.SMTPResponseException as error:
            raise MailFailed(f"{type(error).__name__} {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise MailFailed(type(error).__name__) from None

    def _into_folder(self, message: EmailMessage) -> None:
        folder = Path(self._settings.mail_folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = str(message["Message-ID"]).strip("<>").partition("@")[0]
            part = folder / f".{name}.part"
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(message.as_bytes())
            part.rename(folder / f"{name}.eml")  # whole, or not there
        except OSError as error:
            raise MailFailed(type(error).__name__) from None


def compose(letter: Letter, sender: str) -> EmailMessage:
    """The letter as RFC 5322 has it. A line break in a subject, where a stranger's title may stand, cannot begin a header of its own."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = letter.to
    message["Subject"] = " ".join(letter.subject.split())
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = make_msgid(domain="parley.invalid")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    if letter.calendar is not None:
        message.add_attachment(
            letter.calendar,
            maintype="text",
            subtype="calendar",
            filename="invitation.ics",
            params={"method": letter.method, "charset": "utf-8"},
        )
    return message


def _read_password(path: str) -> str:
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeError):
        raise SettingsMalformed(f"{path} cannot be read: it should hold the mail server's password") from None
