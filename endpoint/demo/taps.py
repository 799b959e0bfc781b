"""What the servers saw and kept: every byte after TLS, every file on their disks. Canaries are searched in it, plain and behind zstd."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import zstandard

from endpoint.screen.picture import Picture

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MAX_PLAIN: Final = 16 << 20
_ROWS: Final = 8


def canaries(texts: Mapping[str, str], pixels: Picture) -> dict[str, bytes]:
    """What must not be found: texts as UTF-8 and UTF-16, and rows of the bitmap in every order of its bytes."""
    wanted: dict[str, bytes] = {}
    for name, text in texts.items():
        wanted[name] = text.encode()
        wanted[f"{name}, UTF-16"] = text.encode("utf-16-le")
    planes = {
        "BGRX": pixels,
        "BGR": pixels[:, :, :3],
        "RGB": pixels[:, :, 2::-1],
        "G": pixels[:, :, 1],
        "B-G": pixels[:, :, 0] - pixels[:, :, 1],
        "R-G": pixels[:, :, 2] - pixels[:, :, 1],
    }
    for order, plane in planes.items():
        for row in range(0, len(plane), len(plane) // _ROWS):
            wanted[f"bitmap {order} row {row}"] = np.ascontiguousarray(plane[row]).tobytes()
    return wanted


def everything(directories: list[Path]) -> Iterator[tuple[Path, bytes]]:
    """Every file below the directories, links not followed."""
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def find(wanted: Mapping[str, bytes], directories: list[Path]) -> list[str]:
    """`canary in file` for each that was found; a sound run finds none."""
    found = []
    for path, content in everything(directories):
        for layer, data in (("", content), *((" (zstd)", plain) for plain in _unpacked(content))):
            found += [f"{name} in {path.name}{layer}" for name, canary in wanted.items() if canary in data]
    return found


def _unpacked(content: bytes) -> Iterator[bytes]:
    """What every zstd frame in it holds, as far as it can be read."""
    at = content.find(_ZSTD_MAGIC)
    while at >= 0:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(content[at:])
        plain = bytearray()
        try:
            while len(plain) < _MAX_PLAIN and (part := reader.read(1 << 16)):
                plain += part
        except zstandard.ZstdError:
            pass
        if plain:
            yield bytes(plain)
        at = content.find(_ZSTD_MAGIC, at + 1)
