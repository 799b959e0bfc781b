"""The manager's settings: one frozen struct, from flags and one TOML file. No cryptographic parameter is among them."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from manager.errors import SettingsMalformed

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[float, Meta(gt=0)]
Burst = Annotated[float, Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field is a key of the TOML file; flags of `parley manager serve` go before it.

    Rates are per second. A *stranger* has no invitation, or a wrong one; a *guest* has the right one, or typed the ID of an open meeting.
    """

    store: str = "manager.db"
    """A SQLite file, or a SQLAlchemy URL of another database."""
    identity: str = "pki/manager"
    """The directory that `parley pki enrol` wrote for this manager."""
    api_host: str = "127.0.0.1"
    """Address of the HTTP API; "" is every address."""
    api_port: Port = 8443
    """0: a free port, named in the ready line."""
    node_host: str = "127.0.0.1"
    """Address where relays call; "" is every address."""
    node_port: Port = 8300
    web_host: str = "127.0.0.1"
    """Address of the site's pages; "" is every address, for which a web certificate is needed."""
    web_port: Port = 8080
    """0: a free port, named in the ready line."""
    web_certificate: str = ""
    """The site's certificate with its chain, PEM, from an authority that browsers trust; "": it is served to this machine alone, by http."""
    web_key: str = ""
    """Its key, PEM."""
    site: str = ""
    """The address that people type, such as https://meet.example.org: it stands in links and mails. "": localhost at the web port."""
    smtp_host: str = ""
    """A mail server; "": letters are put into `mail_folder` as files."""
    smtp_port: Port = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """`none` is for a mail server on this machine alone."""
    smtp_user: str = ""
    smtp_password_file: str = ""
    """A file with the mail server's password."""
    mail_from: str = "parley@localhost"
    mail_folder: str = "mail"
    """Where letters go without a mail server, as `.eml` files."""
    stranger_rate: Positive = 0.2
    """Wrong meeting IDs that one address may try."""
    stranger_burst: Burst = 10
    strangers_rate: Positive = 10
    """Wrong meeting IDs that all strangers together may try."""
    strangers_burst: Burst = 200
    guest_rate: Positive = 20
    """Tickets for one address."""
    guest_burst: Burst = 200
    guests_rate: Positive = 500
    """Tickets for all together."""
    guests_burst: Burst = 5_000
    sign_in_rate: Positive = 0.2
    """Sign-ins, sign-ups and forgotten passwords that one address may try, beside the lock-out."""
    sign_in_burst: Burst = 30
    sign_ins_rate: Positive = 10
    """The same, of all together: what hashing can do."""
    sign_ins_burst: Burst = 100
    call_rate: Positive = 50
    """API calls with one key, or of one sign-in."""
    call_burst: Burst = 200
    calls_rate: Positive = 2_000
    calls_burst: Burst = 5_000
    tap: str | None = None
    """A directory for everything that is received, after TLS. A diagnostic; it holds tokens."""

    def __repr__(self) -> str:
        return "Settings(…)"  # a store's URL may hold a password


def load_settings(path: Path | None, **flags: Any) -> Settings:
    """The file's values, with the flags that are not None before them. Raises `SettingsMalformed`."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
        except OSError as error:
            raise SettingsMalformed(f"{path} cannot be read ({error.strerror})") from None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise SettingsMalformed(f"{path} is no TOML file") from None
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise SettingsMalformed(str(error)) from None
    rates = [value for name, value in msgspec.structs.asdict(settings).items() if name.endswith(("_rate", "_burst"))]
    if not all(math.isfinite(rate) for rate in rates):
        raise SettingsMalformed("a rate is a finite number")
    return msgspec.structs.replace(settings, site=_site(settings))


def local_site(settings: Settings, port: int) -> str:
    """Where this machine finds the pages."""
    return f"{'https' if settings.web_certificate else 'http'}://localhost:{port}"


def _site(settings: Settings) -> str:
    """https://HOST[:PORT] without a slash at the end; "" if the port is not known yet. Raises `SettingsMalformed`.

    `http` is for this machine's own loopback alone: cookies and passkeys need a secure context.
    """
    if bool(settings.web_certificate) != bool(settings.web_key):
        raise SettingsMalformed("web_certificate and web_key belong together")
    site = settings.site.rstrip("/") or (local_site(settings, settings.web_port) if settings.web_port else "")
    if not site:
        return ""
    try:
        parts = urlsplit(site)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    loopback = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not (parts.scheme == "https" or loopback) or not parts.hostname or port == 0 or parts.path or parts.query or "@" in parts.netloc:
        raise SettingsMalformed("the site looks like https://meet.example.org, or http://localhost:PORT on this machine alone")
    return site
