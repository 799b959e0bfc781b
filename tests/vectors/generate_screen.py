"""Write the vectors of the screen codec: `python tests/vectors/generate_screen.py`. For a decoder in another language.

A case is a list of steps that one decoder takes in turn. A step is {"load": hex} or {"apply": hex, "restart": bool}, and what must come of
it: {"rects": [[x, y, width, height], …], "picture": {"width", "height", "bgr": hex}}, or {"error": name}, after which the picture is what it
was. Pictures are rows from the top, three bytes a pixel. The format is in docs/screen.md. The zstd bytes come from one version of zstd; an
encoder need not make the same ones. tests/endpoint/screen/test_screen_vectors.py runs the decoder over the file.
"""

import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard

from endpoint.screen.codec import Decoder, Encoder
from endpoint.screen.picture import Picture, blank

FILE: Final = Path(__file__).with_name("screen.json")
MAGIC: Final = b"\x28\xb5\x2f\xfd"
Step = dict[str, Any]


def picture_step(picture: Picture) -> Step:
    height, width = picture.shape[:2]
    return {"width": width, "height": height, "bgr": picture[:, :, :3].tobytes().hex()}


def raw_block(content: bytes, last: bool) -> bytes:
    """A zstd block that is its own content (RFC 8878, 3.1.1.2)."""
    return (len(content) << 3 | last).to_bytes(3, "little") + content


def hand_snapshot(width: int, height: int, planes: bytes) -> bytes:
    """A frame with one raw block and its size in one byte (single segment)."""
    return struct.pack(">BHH", 1, width, height) + MAGIC + bytes((0x20, len(planes))) + raw_block(planes, True)


def hand_update(rects: list[list[int]], stream: bytes) -> bytes:
    numbers = [number for rect in rects for number in rect]
    return struct.pack(f">BH{len(numbers)}H", 1, len(rects), *numbers) + stream


def begin(window: int = 0) -> bytes:
    """A frame header without a size; window: 2^(10 + window) bytes."""
    return MAGIC + bytes((0, window << 3))


def loaded(snapshot: bytes) -> Step:
    decoder = Decoder()
    decoder.load(snapshot)
    height, width = decoder.picture.shape[:2]
    return {"load": snapshot.hex(), "rects": [[0, 0, width, height]], "picture": picture_step(decoder.picture)}


def by_hand() -> list[Step]:
    """Two pixels, (B, G, R) = (10, 20, 30) and (1, 2, 3); then the second becomes (255, 0, 128), then (7, 7, 7)."""
    first = hand_snapshot(2, 1, bytes((20, 2, 256 - 10, 256 - 1, 10, 1)))
    second = hand_update([[1, 0, 1, 1]], begin() + raw_block(bytes((0, 255, 128)), False))
    third = hand_update([[1, 0, 1, 1]], raw_block(bytes((7, 0, 0)), False))
    return [
        loaded(first),
        {
            "apply": second.hex(),
            "restart": True,
            "rects": [[1, 0, 1, 1]],
            "picture": {"width": 2, "height": 1, "bgr": "0a141eff0080"},
        },
        {
            "apply": third.hex(),
            "restart": False,
            "rects": [[1, 0, 1, 1]],
            "picture": {"width": 2, "height": 1, "bgr": "0a141e070707"},
        },
    ]


def drawn() -> list[Step]:
    """An encoder's own: several rectangles, repeats out of the stream's window, a restart, another geometry."""
    rng, encoder, decoder = np.random.default_rng(5), Encoder(), Decoder()
    picture = blank(70, 66)
    picture[5:60, 10:60, :3] = (200, 180, 90)
    steps = [loaded(encoder.snapshot(picture))]
    decoder.load(bytes.fromhex(steps[0]["load"]))
    stamp = rng.integers(0, 256, (6, 7, 3), np.uint8)
    for turn, restart in enumerate((True, False, False, True)):
        picture[3 * turn : 3 * turn + 6, 7 * turn : 7 * turn + 7, :3] = stamp
        picture[65, 69 - turn, 2] ^= 255
        update = encoder.update(picture, None, restart=restart)
        assert update is not None
        rects = [list(rect) for rect in decoder.apply(update, restart=restart)]
        assert np.array_equal(decoder.picture, picture)
        steps.append({"apply": update.hex(), "restart": restart, "rects": rects, "picture": picture_step(picture)})
    return [*steps, loaded(encoder.snapshot(picture[:2, :3].copy()))]


def refused_updates() -> dict[str, Step]:
    pixel, good = [[0, 0, 1, 1]], begin() + raw_block(bytes(3), False)
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters.from_level(1, window_log=24)).compressobj()
    bodies = {
        "empty": b"",
        "unknown format": b"\x02" + hand_update(pixel, good)[1:],
        "no rectangle": hand_update([], good),
        "rectangle without width": hand_update([[0, 0, 0, 1]], begin() + raw_block(b"", False)),
        "rectangle beyond the right edge": hand_update([[1, 0, 2, 1]], begin() + raw_block(bytes(6), False)),
        "rectangle below the lower edge": hand_update([[0, 1, 1, 1]], good),
        "more rectangles announced than there are": hand_update(pixel, b"")[:-1],
        "too few bytes in the stream": hand_update(pixel, begin() + raw_block(bytes(2), False)),
        "too many bytes in the stream": hand_update(pixel, begin() + raw_block(bytes(4), False)),
        "stream ends within the update": hand_update(pixel, begin() + raw_block(bytes(2), True)),
        "no zstd": hand_update(pixel, b"not zstd at all"),
        "window of 16 MiB": hand_update(pixel, wide.compress(bytes(3)) + wide.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)),
    }
    steps = {name: {"apply": body.hex(), "restart": True, "error": "bad-update"} for name, body in bodies.items()}
    never_begun = {"apply": hand_update(pixel, raw_block(bytes(3), False)).hex(), "restart": False, "error": "bad-update"}
    return {**steps, "continues a stream that never began": never_begun}


def refused_snapshots() -> dict[str, Step]:
    good = hand_snapshot(2, 1, bytes(6))
    bodies = {
        "empty": ("bad-snapshot", b""),
        "unknown format": ("bad-snapshot", b"\x02" + good[1:]),
        "size does not fit the geometry": ("bad-snapshot", good[:2] + b"\x03" + good[3:]),
        "size not declared": ("bad-snapshot", good[:5] + begin() + raw_block(bytes(6), True)),
        "less than declared": ("bad-snapshot", good[:11] + raw_block(bytes(5), True)),
        "cut off": ("bad-snapshot", good[:-1]),
        "something after the frame": ("bad-snapshot", good + b"\x00"),
        "no width": ("screen-too-large", struct.pack(">BHH", 1, 0, 1) + good[5:]),
        "too wide": ("screen-too-large", struct.pack(">BHH", 1, 7681, 1) + good[5:]),
    }
    return {name: {"load": body.hex(), "error": error} for name, (error, body) in bodies.items()}


def cases() -> list[dict[str, Any]]:
    ground = loaded(hand_snapshot(2, 1, bytes(6)))
    after = {"apply": hand_update([[0, 0, 1, 1]], begin() + raw_block(bytes(3), False)).hex(), "restart": True}
    return [
        {"name": "by hand", "steps": by_hand()},
        {"name": "drawn", "steps": drawn()},
        {"name": "update before any snapshot", "steps": [{**after, "error": "no-snapshot"}]},
        *(
            {"name": f"refused update: {name}", "steps": [ground, step, {**after, "error": "no-snapshot"}, ground]}
            for name, step in refused_updates().items()
        ),
        *(
            {"name": f"refused snapshot: {name}", "steps": [ground, step, {**after, "error": "no-snapshot"}, ground]}
            for name, step in refused_snapshots().items()
        ),
    ]


if __name__ == "__main__":
    FILE.write_text(json.dumps({"about": (__doc__ or "").strip(), "cases": cases()}, indent=1) + "\n")
