"""An endpoint's settings: one frozen struct, from flags and one TOML file. No cryptographic parameter is among them.

The file is the one that --config names, else $XDG_CONFIG_HOME/parley/parley.toml (~/.config/parley/parley.toml) if there is one. A flag
goes before the file. A key that is not a field here is refused by name, so that a misspelt one is not passed over in silence.
"""

import os
import pwd
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from endpoint.errors import EndpointError
from endpoint.invitation import SITES, is_site
from endpoint.text import clean_line

KEY_FILE_VARIABLE: Final = "PARLEY_API_KEY_FILE"
MAX_KEY: Final = 512


class SettingsError(EndpointError):
    name: ClassVar[str] = "settings-malformed"
    sentence: ClassVar[str] = "The settings cannot be used; docs/operating.md lists them."


class NoKey(EndpointError):
    name: ClassVar[str] = "key-missing"
    sentence: ClassVar[str] = (
        f"Organizing needs an API key: name its file with --key-file, `key_file` in parley.toml or {KEY_FILE_VARIABLE}. "
        "`parley manager add-organizer NAME` makes one."
    )


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field is a key of the TOML file. Paths in the file are relative to the file; ~ is the home directory."""

    name: str = ""
    """How others see this person; by default the name of the login."""
    manager: str = ""
    """The service manager, https://HOST[:PORT]. `parley join` takes it from the link, or from a `parley up` on this machine."""
    ca: str = ""
    """The cluster's ca.crt."""
    key_file: str = ""
    """A file that holds the organizer's API key alone."""
    share: str = "auto"
    """What a host shares: `desktop`, `monitor:NAME`, `window:TITLE`, `region:WxH+X+Y`, `xvfb` (a desktop of its own), a folder of pictures;
    `auto`: the first of desktop, xvfb and slides that there is."""
    exclude: str = ""
    """Programs that are never shown, black wherever they stand: names of windows or programs, separated by commas."""
    display: str = ""
    """The X11 display to share, such as :0; by default $DISPLAY."""
    picture: str = ""
    """Where the PNG of the screen goes; by default parley-MEETING.png in the current directory."""

    @property
    def excluded(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.exclude.split(",") if name.strip())


_PATHS: Final = ("ca", "key_file", "picture")


def load_settings(config: Path | None, **flags: str | None) -> Settings:
    """The file's values, with the flags that are not None before them. Raises SettingsError."""
    values = _file_values(config)
    if KEY_FILE_VARIABLE in os.environ:
        values["key_file"] = os.environ[KEY_FILE_VARIABLE]
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{clean_line(str(error))}. Known are: {', '.join(Settings.__struct_fields__)}.") from None
    if settings.manager:
        check_site(settings.manager)
    return settings


def _file_values(config: Path | None) -> dict[str, Any]:
    path = config or _default_file()
    try:
        values = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        if config is None:
            return {}
        raise SettingsError(f"{path} does not exist.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise SettingsError(f"{path} is no TOML file.") from None
    near = [*_PATHS, *(["share"] if "/" in str(values.get("share", "")) else [])]
    for name in near:
        if isinstance(values.get(name), str) and values[name]:
            values[name] = str(path.parent / Path(values[name]).expanduser())
    return values


def _default_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "parley" / "parley.toml"


def check_site(site: str) -> None:
    """A manager's address is one (`is_site`) and nothing more. Raises SettingsError."""
    if not is_site(site):
        raise SettingsError(f"A manager's address looks like {SITES}.")


def api_key(settings: Settings) -> str:
    """The organizer's API key, from its file. Raises NoKey."""
    if not settings.key_file:
        raise NoKey
    path = Path(settings.key_file).expanduser()
    try:
        key = path.read_text("ascii").strip()
    except OSError as error:
        raise NoKey(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        key = ""
    if not key or len(key) > MAX_KEY or not key.isprintable() or " " in key:
        raise NoKey(f"{path} holds no API key; it is the one line that `parley manager add-organizer` prints.")
    return key


def own_name(settings: Settings) -> str:
    """The display name: the setting, else the login's full name, else its short one; "" if there is none."""
    if settings.name:
        return settings.name
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return ""
    return clean_line(entry.pw_gecos.partition(",")[0]) or clean_line(entry.pw_name)
