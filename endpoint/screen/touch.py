"""Hands on a machine: one interface for moving its mouse and keyboard, whatever the platform.

A touch is entered before use. `act` does one event of `endpoint.hands`; places are pixels of the shared picture. What is held down is
let go by `release`. `local` tells when the person at this machine has used its own mouse or keyboard, or the key that takes the hands
back: then `taken_back` is true. What can go wrong is a ScreenError: `no-display`, `display-lost`, `unsupported-display`.
"""

from types import TracebackType
from typing import Protocol, Self

from endpoint.hands import InputEvent


class Touch(Protocol):
    """Mouse and keyboard of a machine, to be moved by a program."""

    @property
    def held(self) -> bool:
        """Whether a key or a button is down by our doing."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    async def act(self, event: InputEvent) -> None:
        """Do it."""

    def release(self) -> None:
        """Let go of everything that is held."""

    async def local(self) -> bool:
        """Wait until the person here moves, clicks or types; True if it was the key that takes the hands back."""
