"""Write the vectors of hands and pointers: `python tests/vectors/generate_hands.py`. Deterministic: same code, same bytes.

    hands.json    contents of channels 4 and 6 with what they mean, identities of shapes, and what must be refused

Bytes are lower-case hex. tests/endpoint/test_hands.py regenerates and compares.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from endpoint.errors import MalformedContent
from endpoint.hands import Button, Input, Key, Move, Pointer, Shape, Text, Wheel, encode, parse_input_untrusted, parse_pointer_untrusted

HERE: Final = Path(__file__).parent
ARROW: Final = Shape(3, 2, 1, 0, bytes(range(24)))

INPUTS: Final[list[tuple[str, Input]]] = [
    ("something is still held", Input(-1)),
    ("a drag", Input(7, [Move(10, 20), Button(1, True), Move(-3, 32767), Button(1, False)])),
    ("two notches down, one to the left", Input(2**63 - 1, [Wheel(0, 2), Wheel(-1, 0)])),
    ("Ctrl-C", Input(0, [Key(0xFFE3, True), Key(0x63, True), Key(0x63, False), Key(0xFFE3, False)])),
    ("text", Input(300, [Text("né 中文 😀")])),
]
POINTERS: Final[list[tuple[str, Pointer]]] = [
    ("moving", Pointer(640, 480, True, ARROW.identity)),
    ("at rest, with its shape", Pointer(640, 480, True, ARROW.identity, ARROW)),
    ("outside of the picture", Pointer(-5, 2000, False)),
]
REFUSED_INPUTS: Final[list[tuple[str, Any]]] = [
    ("no array", 7),
    ("below -1", [-2, []]),
    ("an unknown event", [0, [[6, 1]]]),
    ("button 0", [0, [[2, 0, True]]]),
    ("33 notches", [0, [[3, 0, 33]]]),
    ("no keysym", [0, [[4, 0, True]]]),
    ("empty text", [0, [[5, ""]]]),
    ("257 characters", [0, [[5, "x" * 257]]]),
    ("65 events", [0, [[1, 0, 0]] * 65]),
    ("a place of 17 bits", [0, [[1, 32768, 0]]]),
]
REFUSED_POINTERS: Final[list[tuple[str, Any]]] = [
    ("too few fields", [1, 2]),
    ("an identity of nine bytes", [0, 0, True, b"123456789", None]),
    ("pixels of another identity", [0, 0, True, bytes(8), [3, 2, 1, 0, ARROW.pixels]]),
    ("fewer pixels than it says", [0, 0, True, ARROW.identity, [3, 3, 1, 0, ARROW.pixels]]),
]


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def refused(name: str, value: Any, parse: Any) -> dict[str, Any]:
    body = encode(value)
    try:
        parse(body)
    except MalformedContent as error:
        return {"name": name, "content": body.hex(), "refused": error.name}
    raise AssertionError(name)


def vectors() -> str:
    cases = {
        "input": [{"name": n, "content": encode(v).hex(), "value": plain(msgspec.msgpack.decode(encode(v)))} for n, v in INPUTS],
        "pointer": [{"name": n, "content": encode(v).hex(), "value": plain(msgspec.msgpack.decode(encode(v)))} for n, v in POINTERS],
        "input_refused": [refused(name, value, parse_input_untrusted) for name, value in REFUSED_INPUTS],
        "pointer_refused": [refused(name, value, parse_pointer_untrusted) for name, value in REFUSED_POINTERS],
    }
    return json.dumps(cases, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    (HERE / "hands.json").write_text(vectors())
