"""Write the vectors of the screen codec: `python tests/vectors/generate_screen.py`. For a decoder in another language.

A case is a list of steps that one decoder takes in turn. A step is {"load": hex} or {"apply": hex, "restart": bool}, and what must come of
it: {"rects": [[x, y, width, height], …], "picture": {"width", "height", "bgr": hex}}, or {"error": name}, after which the picture is what it
was. Pictures are rows from the top, three bytes a pixel. A picture with {"within": n} has film in it, whose colours may differ by up to n:
decoders turn them to RGB in ways of their own. The format is in docs/screen.md. The zstd and VP9 bytes come from one version of their encoders;
others need not make the same ones. tests/endpoint/screen/test_screen_vectors.py runs the decoder over the file.
"""

import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard

from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.layout import Copy, Exact, Film, Update, pack_update
from endpoint.screen.picture import Picture, Rect, blank, words
from endpoint.screen.planes import split
from endpoint.screen.vp9 import FilmEncoder

FILE: Final = Path(__file__).with_name("screen.json")
MAGIC: Final = b"\x28\xb5\x2f\xfd"
Step = dict[str, Any]


def picture_step(picture: Picture) -> Step:
    height, width = picture.shape[:2]
    return {"width": width, "height": height, "bgr": picture[:, :, :3].tobytes().hex()}


def raw_block(content: bytes, last: bool) -> bytes:
    """A zstd block that is its own content (RFC 8878, 3.1.1.2)."""
    return (len(content) << 3 | last).to_bytes(3, "little") + content


def hand_snapshot(width: int, height: int, planes: bytes, lefts: bytes = b"\x00") -> bytes:
    """A frame with one raw block and its size in one byte (single segment)."""
    return struct.pack(">BHH", 2, width, height) + lefts + single(planes)


def single(content: bytes) -> bytes:
    return MAGIC + bytes((0x20, len(content))) + raw_block(content, True)


def section(tag: int, body: bytes) -> bytes:
    return struct.pack(">BI", tag, len(body)) + body


def hand_update(rects: list[list[int]], stream: bytes, tag: int = 4) -> bytes:
    numbers = [number for rect in rects for number in rect]
    return b"\x02" + section(tag, struct.pack(f">H{len(numbers)}H", len(rects), *numbers) + stream)


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


def left() -> list[Step]:
    """Differences to the left neighbour, in a snapshot of 3 × 1 and in a still section: grey 10, 12, 11, then grey 200, 199."""
    first = hand_snapshot(3, 1, bytes((10, 2, 255, 0, 0, 0, 0, 0, 0)), b"\x01")
    second = hand_update([[1, 0, 2, 1]], single(bytes((200, 255, 0, 0, 0, 0))), 3)
    return [
        loaded(first),
        {"apply": second.hex(), "restart": True, "rects": [[1, 0, 2, 1]], "picture": {"width": 3, "height": 1, "bgr": "0a0a0ac8c8c8c7c7c7"}},
    ]


def copied() -> list[Step]:
    """Four grey pixels 1 2 3 4. Both copies read the picture as it was: 1→2 and 2→3; then pixels are drawn over one of them."""
    first = hand_snapshot(4, 1, bytes((1, 2, 3, 4)) + bytes(8))
    copies = struct.pack(">12H", 0, 0, 1, 0, 1, 1, 1, 0, 2, 0, 1, 1)
    second = b"\x02" + section(1, copies) + hand_update([[2, 0, 1, 1]], begin() + raw_block(bytes((9, 0, 0)), False))[1:]
    third = b"\x02" + section(1, struct.pack(">6H", 0, 0, 1, 0, 3, 1))
    rects = [[1, 0, 1, 1], [2, 0, 1, 1], [2, 0, 1, 1]]
    return [
        loaded(first),
        {"apply": second.hex(), "restart": True, "rects": rects, "picture": {"width": 4, "height": 1, "bgr": "010101010101090909040404"}},
        {
            "apply": third.hex(),
            "restart": False,
            "rects": [[1, 0, 3, 1]],
            "picture": {"width": 4, "height": 1, "bgr": "010101010101010101090909"},
        },
    ]


def filmed() -> list[Step]:
    """Two frames of film, painted in parts of the region; one begins another film, at half the size; the last makes it exact."""
    down, across = np.mgrid[0:40, 0:56]
    picture = blank(56, 40)
    picture[:, :, 0], picture[:, :, 1], picture[:, :, 2] = 60 + down, 90 + across, 200 - down - across
    encoder, decoder = Encoder(), Decoder()
    steps = [loaded(encoder.snapshot(blank(56, 40)))]
    decoder.load(bytes.fromhex(steps[0]["load"]))

    def step(update: Update, *, restart: bool = False, within: int = 6) -> None:
        body = pack_update(update)
        rects = [list(rect) for rect in decoder.apply(body, restart=restart)]
        steps.append({"apply": body.hex(), "restart": restart, "rects": rects, "picture": {**picture_step(decoder.picture), "within": within}})

    region, paints = Rect(8, 4, 40, 32), (Rect(8, 4, 40, 8), Rect(16, 20, 32, 16))
    full, half = FilmEncoder(40, 32, 30), FilmEncoder(20, 16, 30)
    part = np.ascontiguousarray(picture[4:36, 8:48])
    step(Update(film=Film(region, 1, True, paints, full.encode(part))), restart=True)
    step(Update(film=Film(region, 1, False, (region,), full.encode(np.ascontiguousarray(part[:, ::-1])))))
    step(Update(copies=(Copy(8, 4, Rect(0, 0, 8, 8)),), film=Film(region, 2, True, (Rect(9, 5, 7, 7),), half.encode(part))), within=12)
    whole = Rect(0, 0, 56, 40)
    still = Exact((whole,), zstandard.ZstdCompressor().compress(split(words(picture), [whole], left=True).data))
    body = pack_update(Update(still=still))
    decoder.apply(body, restart=False)
    assert np.array_equal(decoder.picture, picture)
    steps.append({"apply": body.hex(), "restart": False, "rects": [list(whole)], "picture": picture_step(picture)})
    return steps


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
        update = encoder.update(picture, None, restart=restart, now=float(turn))
        assert update is not None
        rects = [list(rect) for rect in decoder.apply(update, restart=restart)]
        assert np.array_equal(decoder.picture, picture)
        steps.append({"apply": update.hex(), "restart": restart, "rects": rects, "picture": picture_step(picture)})
    return [*steps, loaded(encoder.snapshot(picture[:2, :3].copy()))]


def refused_updates() -> dict[str, Step]:
    pixel, good = [[0, 0, 1, 1]], begin() + raw_block(bytes(3), False)
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters.from_level(1, window_log=24)).compressobj()
    whole = b"\x02"
    copy = struct.Struct(">6H")
    frame = FilmEncoder(2, 1, 63).encode(blank(2, 1))
    film = struct.Struct(">HHHHBBH4H")
    bodies = {
        "empty": b"",
        "nothing in it": whole,
        "unknown format": b"\x01" + hand_update(pixel, good)[1:],
        "unknown section": whole + section(5, b"x"),
        "section twice": hand_update(pixel, good) + hand_update(pixel, good)[1:],
        "sections in another order": hand_update(pixel, good) + section(1, copy.pack(0, 0, 1, 0, 1, 1)),
        "section longer than the update": hand_update(pixel, good)[:-1],
        "no rectangle": hand_update([], good),
        "rectangle without width": hand_update([[0, 0, 0, 1]], begin() + raw_block(b"", False)),
        "rectangle beyond the right edge": hand_update([[1, 0, 2, 1]], begin() + raw_block(bytes(6), False)),
        "rectangle below the lower edge": hand_update([[0, 1, 1, 1]], good),
        "more rectangles announced than there are": whole + section(4, b"\x00\x02" + bytes(8)),
        "too few bytes in the stream": hand_update(pixel, begin() + raw_block(bytes(2), False)),
        "too many bytes in the stream": hand_update(pixel, begin() + raw_block(bytes(4), False)),
        "stream ends within the update": hand_update(pixel, begin() + raw_block(bytes(2), True)),
        "no zstd": hand_update(pixel, b"not zstd at all"),
        "window of 16 MiB": hand_update(pixel, wide.compress(bytes(3)) + wide.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)),
        "copy from outside": whole + section(1, copy.pack(1, 0, 0, 0, 2, 1)),
        "copy to outside": whole + section(1, copy.pack(0, 0, 1, 0, 2, 1)),
        "copies of more than the screen": whole + section(1, copy.pack(0, 0, 0, 0, 2, 1) + copy.pack(0, 0, 1, 0, 1, 1)),
        "half a copy": whole + section(1, copy.pack(0, 0, 1, 0, 1, 1)[:6]),
        "still of another size than its rectangle": hand_update(pixel, single(bytes(6)), 3),
        "still without its size": hand_update(pixel, begin() + raw_block(bytes(3), True), 3),
        "something after the still": hand_update(pixel, single(bytes(3)) + b"x", 3),
        "film that never began": whole + section(2, film.pack(0, 0, 2, 1, 1, 0, 1, 0, 0, 2, 1) + frame),
        "film of another size": whole + section(2, film.pack(0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1) + frame),
        "film paints outside of its region": whole + section(2, film.pack(0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1) + frame),
        "film at a third of its size": whole + section(2, film.pack(0, 0, 2, 1, 3, 1, 1, 0, 0, 2, 1) + frame),
        "film without a frame": whole + section(2, film.pack(0, 0, 2, 1, 1, 1, 1, 0, 0, 2, 1)),
        "film that is no VP9": whole + section(2, film.pack(0, 0, 2, 1, 1, 1, 1, 0, 0, 2, 1) + b"no film"),
    }
    steps = {name: {"apply": body.hex(), "restart": True, "error": "bad-update"} for name, body in bodies.items()}
    never_begun = {"apply": hand_update(pixel, raw_block(bytes(3), False)).hex(), "restart": False, "error": "bad-update"}
    return {**steps, "continues a stream that never began": never_begun}


def refused_snapshots() -> dict[str, Step]:
    good = hand_snapshot(2, 1, bytes(6))
    bodies = {
        "empty": ("bad-snapshot", b""),
        "unknown format": ("bad-snapshot", b"\x01" + good[1:]),
        "unknown way of a band": ("bad-snapshot", good[:5] + b"\x02" + good[6:]),
        "size does not fit the geometry": ("bad-snapshot", good[:2] + b"\x03" + good[3:]),
        "size not declared": ("bad-snapshot", good[:6] + begin() + raw_block(bytes(6), True)),
        "less than declared": ("bad-snapshot", good[:12] + raw_block(bytes(5), True)),
        "cut off": ("bad-snapshot", good[:-1]),
        "something after the frame": ("bad-snapshot", good + b"\x00"),
        "no width": ("screen-too-large", struct.pack(">BHH", 2, 0, 1) + good[5:]),
        "too wide": ("screen-too-large", struct.pack(">BHH", 2, 7681, 1) + good[5:]),
    }
    return {name: {"load": body.hex(), "error": error} for name, (error, body) in bodies.items()}


def cases() -> list[dict[str, Any]]:
    ground = loaded(hand_snapshot(2, 1, bytes(6)))
    after = {"apply": hand_update([[0, 0, 1, 1]], begin() + raw_block(bytes(3), False)).hex(), "restart": True}
    return [
        {"name": "by hand", "steps": by_hand()},
        {"name": "differences to the left", "steps": left()},
        {"name": "copies", "steps": copied()},
        {"name": "film", "steps": filmed()},
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
