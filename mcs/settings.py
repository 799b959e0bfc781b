"""A relay's settings: one documented dataclass, from a TOML file and flags. No cryptographic parameter is among them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from wire.errors import ParleyError

Address = tuple[str, int]
LISTEN: Final[tuple[Address, ...]] = (("127.0.0.1", 8200),)


class SettingsError(ParleyError):
    name = "settings-malformed"
    sentence = "The settings cannot be read; `parley mcs --help` lists them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a relay must be told. Its name and cluster stand in its certificate."""

    identity: Path
    """Directory with `node.crt`, `node.key` and `ca.crt`, as `parley pki enrol` writes them."""
    listen: tuple[Address, ...] = LISTEN
    """Host and port each; port 0 is a free one, an empty host every address of this machine."""
    advertise: tuple[Address, ...] = ()
    """What others are told to call; by default what is listened on."""
    managers: tuple[Address, ...] = ()
    """The managers' node ports. None: the relay knows only what other nodes tell it."""
    peers: tuple[Address, ...] = ()
    """Other relays. One is enough to find all, also while no manager runs."""
    metrics_port: int | None = None
    """Port on 127.0.0.1 for metrics in Prometheus' form (`/metrics`) and for `parley mcs status` and `parley overlay`. None: neither."""
    region: str = ""
    """Where it stands, for operators to read. Who is near whom is measured."""
    tap: Path | None = None
    """A diagnostic: every received byte, after TLS, goes to a file per link in this directory."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identity: str = ""
    listen: list[str] = []
    advertise: list[str] = []
    managers: list[str] = []
    peers: list[str] = []
    metrics_port: int | None = None
    region: str = ""
    tap: str = ""


def parse_address(text: str, *, default_host: str = "") -> Address:
    """HOST:PORT, [IPV6]:PORT, :PORT or PORT. Raises `SettingsError`.

    >>> parse_address("[::1]:8200")
    ('::1', 8200)
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdecimal() and int(port) <= 0xFFFF) or (":" in host and "[" not in text):
        raise SettingsError(f"{text!r} is no address; write HOST:PORT, for example 127.0.0.1:8200.")
    return host or default_host, int(port)


def read_settings(file: Path | None, flags: Mapping[str, object]) -> Settings:
    """The file's settings, each replaced by its flag where one is given. Raises `SettingsError`."""
    try:
        found = msgspec.toml.decode(file.read_bytes(), type=_File, strict=True) if file else _File()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{file} is no settings file: {error}.") from None
    values: dict[str, object] = msgspec.structs.asdict(found)
    values.update({name: value for name, value in flags.items() if value or value == 0})
    texts = {name: tuple(str(t) for t in value) for name, value in values.items() if isinstance(value, list | tuple)}
    if not values["identity"]:
        raise SettingsError("A relay needs its certificate: --identity DIRECTORY, as `parley pki enrol` wrote it.")
    return Settings(
        identity=Path(str(values["identity"])),
        listen=tuple(parse_address(t) for t in texts["listen"]) or LISTEN,
        advertise=tuple(parse_address(t) for t in texts["advertise"]),
        managers=tuple(parse_address(t) for t in texts["managers"]),
        peers=tuple(parse_address(t) for t in texts["peers"]),
        metrics_port=_port(values["metrics_port"]),
        region=str(values["region"]),
        tap=Path(str(values["tap"])) if values["tap"] else None,
    )


def _port(value: object) -> int | None:
    if value is None or (isinstance(value, int) and 0 <= value <= 0xFFFF):
        return value
    raise SettingsError(f"{value!r} is no port; write a number up to 65535.")
