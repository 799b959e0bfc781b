"""A connection to an X11 display: opened in a thread with a deadline, its errors by our names. What captures and what touches share it.

xcffib loads libxcb when it is imported, so it is imported here, when a display is wanted.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

from endpoint.screen.picture import ScreenError

CONNECT_SECONDS: Final = 10.0
EXTENSIONS: Final = ("xproto", "composite", "damage", "randr", "shm", "xfixes", "xinput", "xtest")


class Display:
    """One connection. name: ":0"; None means $DISPLAY."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or os.environ.get("DISPLAY", "")
        self.connection: Any = None
        self.root = 0
        self.screen: Any = None  # the preferred one's description
        self.x: Any = None  # the xcffib module, untyped

    async def open(self) -> None:
        """Raises ScreenError `no-display`."""
        if not self.name:
            raise ScreenError(
                "no-display",
                "There is no display to share: DISPLAY is not set. Run this on a desktop, name one with --display, "
                "or share a folder of pictures.",
            )
        with trio.move_on_after(CONNECT_SECONDS):
            await trio.to_thread.run_sync(self._connect, abandon_on_cancel=True)
        if self.connection is None:
            raise self.missing("it does not answer")
        self.screen = self.connection.get_setup().roots[self.connection.pref_screen]
        self.root = self.screen.root

    def _connect(self) -> None:
        try:
            self.x = importlib.import_module("xcffib")
            for extension in EXTENSIONS:  # a connection knows the events of what was imported before it
                importlib.import_module(f"xcffib.{extension}")
        except (ImportError, OSError) as error:
            raise ScreenError("no-display", f"Displays cannot be reached without libxcb ({error}). Install the package libxcb1.") from None
        try:
            self.connection = self.x.connect(self.name)
        except self.x.XcffibException:
            raise self.missing("no server is there, or it refuses us") from None

    def close(self) -> None:
        if self.connection is not None:
            with suppress(self.x.XcffibException):  # lost already: nobody can wait on it
                trio.lowlevel.notify_closing(self.connection.get_file_descriptor())
            self.connection.disconnect()
            self.connection = None

    def module(self, extension: str) -> Any:
        return importlib.import_module(f"xcffib.{extension}")

    def optional(self, extension: str) -> Any:
        """An extension, or None if the server has it not."""
        key = self.module(extension).key
        return self.connection(key) if self.connection.core.QueryExtension(len(key.name), key.name).reply().present else None

    def extension(self, extension: str) -> Any:
        """Raises ScreenError `unsupported-display`."""
        found = self.optional(extension)
        if found is None:
            raise self.unsupported(f"does not have the extension {extension.upper()}")
        return found

    async def readable(self) -> None:
        """Wait until the server says something. Raises ScreenError `display-lost`."""
        with self.errors():
            descriptor = self.connection.get_file_descriptor()
        await trio.lowlevel.wait_readable(descriptor)

    def atom(self, name: str) -> int:
        return int(self.connection.core.InternAtom(False, len(name), name).reply().atom)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the X library raises, by our name."""
        if self.connection is None:
            raise ScreenError("display-lost", "The display is closed. Share it again.")
        try:
            yield
        except self.x.ConnectionException:
            raise ScreenError("display-lost", f"The display {self.name} has gone away. Start it again, then share it again.") from None
        except self.x.Error as error:
            raise ScreenError("display-lost", f"The display {self.name} refuses what is needed ({type(error).__name__}).") from None

    def missing(self, why: str) -> ScreenError:
        return ScreenError(
            "no-display", f"The display {self.name} cannot be opened: {why}. Check DISPLAY and XAUTHORITY, or name another one with --display."
        )

    def unsupported(self, what: str) -> ScreenError:
        return ScreenError("unsupported-display", f"The display {self.name} {what}. Use one with 24-bit colours and XDamage.")
