"""Bytes that must not show: an API key, an invitation, a session secret."""

from hmac import compare_digest
from typing import Final


class Hidden:
    """Secret bytes. Never in a repr, compared in constant time, revealed only by name."""

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        self._bytes = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves, for the one message or table that carries them."""
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and compare_digest(self._bytes, other._bytes)

    __hash__ = None  # type: ignore[assignment]  # a hash would be compared in variable time

    def __repr__(self) -> str:
        return "Hidden(…)"


INVITE_SIZE: Final = 8
SECRET_SIZE: Final = 32
NO_INVITE: Final = Hidden(bytes(INVITE_SIZE))
"""Stands in where there is nothing to compare with, so that the comparison is made all the same. No meeting has it."""
