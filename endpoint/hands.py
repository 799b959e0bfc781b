"""What hands and pointers say: the contents of channels 4 and 6. Typed msgpack arrays with limits; formats alone.

    channel 4 (input)    participant who holds the controls → presenter, signed, in order    [shown, [event, …]]
    channel 6 (cursor)   presenter → all, the newest wins                                    [x, y, visible, shape, pixels or nil]

Places are pixels of the shared picture. Keys are X11 keysyms (keysymdef.h), whatever the platform: they name what a key means, not where
it is. Text is text: what a layout, a dead key or an input method at the sender's side has made of keys.

A pointer's shape has an identity, the first 8 bytes of SHA-256 over its geometry and pixels. Pixels travel when the shape is new and
when the pointer comes to rest; so who skipped packets has the whole truth a moment later, and a moving pointer costs 30 bytes.
"""

from hashlib import sha256
from struct import pack
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from endpoint.errors import MalformedContent

MAX_EVENTS: Final = 64
"""Events of one input message."""
MAX_TEXT: Final = 256
"""Characters of one text event."""
MAX_SHAPE: Final = 3600
"""Pixels of a pointer's shape: with its place it fits one packet."""
Place = Annotated[int, Meta(ge=-32768, le=32767)]


class Move(Struct, frozen=True, array_like=True, tag=1):
    """The pointer goes there."""

    x: Place
    y: Place


class Button(Struct, frozen=True, array_like=True, tag=2):
    """1 left, 2 middle, 3 right, 8 back, 9 forward."""

    button: Annotated[int, Meta(ge=1, le=9)]
    down: bool


class Wheel(Struct, frozen=True, array_like=True, tag=3):
    """Notches, to the right and down."""

    right: Annotated[int, Meta(ge=-32, le=32)]
    down: Annotated[int, Meta(ge=-32, le=32)]


class Key(Struct, frozen=True, array_like=True, tag=4):
    """A key that means `keysym`, pressed or released."""

    keysym: Annotated[int, Meta(ge=1, le=0x1FFF_FFFF)]
    down: bool


class Text(Struct, frozen=True, array_like=True, tag=5):
    """To be typed as it is."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


InputEvent = Move | Button | Wheel | Key | Text


class Input(Struct, frozen=True, array_like=True):
    """`shown`: the last channel-5 counter that its sender saw. No event: something is still held down."""

    shown: Annotated[int, Meta(ge=-1, le=2**63 - 1)]
    events: Annotated[list[InputEvent], Meta(max_length=MAX_EVENTS)] = []


class Shape(Struct, frozen=True, array_like=True):
    """How a pointer looks: RGBA, not premultiplied, rows from the top; the hot spot is what `Pointer.x`, `y` name."""

    width: Annotated[int, Meta(ge=1, le=MAX_SHAPE)]
    height: Annotated[int, Meta(ge=1, le=MAX_SHAPE)]
    hot_x: Annotated[int, Meta(ge=0, le=MAX_SHAPE)]
    hot_y: Annotated[int, Meta(ge=0, le=MAX_SHAPE)]
    pixels: Annotated[bytes, Meta(min_length=4, max_length=4 * MAX_SHAPE)]

    @property
    def identity(self) -> bytes:
        return sha256(pack("!4H", self.width, self.height, self.hot_x, self.hot_y) + self.pixels).digest()[:8]


class Pointer(Struct, frozen=True, array_like=True):
    """Where the presenter's pointer is, and how it looks. `shape` is empty while it is unknown."""

    x: Place
    y: Place
    visible: bool
    shape: Annotated[bytes, Meta(max_length=8)] = b""
    pixels: Shape | None = None


encode: Final = msgspec.msgpack.Encoder().encode
_input: Final = msgspec.msgpack.Decoder(Input)
_pointer: Final = msgspec.msgpack.Decoder(Pointer)
_REFUSED: Final = (msgspec.MsgspecError, RecursionError, ValueError)


def parse_input_untrusted(content: bytes) -> Input:
    """Raises MalformedContent."""
    try:
        return _input.decode(content)
    except _REFUSED:
        raise MalformedContent from None


def parse_pointer_untrusted(content: bytes) -> Pointer:
    """Raises MalformedContent; so it does when pixels are not those of their identity."""
    try:
        pointer = _pointer.decode(content)
    except _REFUSED:
        raise MalformedContent from None
    shape = pointer.pixels
    if shape is not None and (len(shape.pixels) != 4 * shape.width * shape.height or shape.identity != pointer.shape):
        raise MalformedContent
    return pointer
