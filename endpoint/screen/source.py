"""Where pictures of a screen come from: one interface, whatever the platform.

A source is entered before use. `grab` is quick and synchronous: it returns the retained picture, which the next grab
changes in place, and where it changed. `wait` returns when something may have changed since the last grab, and may do
so for nothing. What can go wrong is a ScreenError, of those that its docstring lists under "no picture of it".
"""

from types import TracebackType
from typing import Protocol, Self

from endpoint.hands import Pointer
from endpoint.screen.picture import Picture, Rect


class Source(Protocol):
    """A screen, or what takes its place."""

    @property
    def name(self) -> str:
        """What is shared, in words for a person."""

    @property
    def geometry(self) -> tuple[int, int]:
        """Width and height of the next picture, in pixels. A grab can change it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    async def wait(self) -> None:
        """Return when a grab may find something new."""

    def grab(self) -> tuple[Picture, list[Rect] | None]:
        """The picture now, and what changed since the last grab (None: anything may have).

        The picture is the source's own memory: it is valid until the next grab.
        """


class PointerSource(Protocol):
    """Where the pointer is over a source's picture, and how it looks. Entered after its source."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    async def wait(self) -> None:
        """Return when it has moved or looks different."""

    def look(self, *, whole: bool) -> Pointer:
        """Now; with its pixels if they are new, or `whole` is wanted."""
