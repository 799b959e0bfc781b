"""Fuzz the screen's decoder: `make fuzz`, or `python tests/fuzz/screen.py --executions 10000000 --seed 7`.

Good snapshots and updates, with sections of every kind, are mutated (bits, numbers, pieces taken out, doubled, exchanged with another's;
half of the time the sections' lengths are set right again, so that what lies within is reached) and given to a decoder. Then must hold:

    nothing but ScreenError comes out, by one of four names; after it only a snapshot helps
    a refused update has drawn nothing, an accepted one keeps geometry and the fourth bytes
    whole against piecewise: the sections of an accepted update, each as an update of its own, are accepted too, and draw the same
    the process grows by less than GROWTH, whatever was announced

All follows from the seed: a failure names it and the number of the execution, and `--seed S --from N` goes straight there.
"""

import argparse
import copy
import random
import resource
import struct
import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import zstandard

from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.layout import FILM, FORMAT, Copy, Exact, Film, Update, pack_update
from endpoint.screen.picture import Picture, Rect, ScreenError, blank, words
from endpoint.screen.planes import split
from endpoint.screen.vp9 import FilmEncoder

WIDTH, HEIGHT = 48, 40
GROWTH: Final = 64 << 20
NUMBERS: Final = (0, 1, 2, 7, 8, 39, 40, 41, 47, 48, 49, 64, 127, 128, 255, 256, 4096, 8192, 8193, 32767, 65535)
NAMES: Final = {"bad-update", "bad-snapshot", "screen-too-large", "no-snapshot"}
_SECTION = struct.Struct(">BI")


def noise(width: int, height: int, seed: int) -> Picture:
    picture = blank(width, height)
    picture[:, :, :3] = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return picture


def seeds() -> tuple[bytes, list[bytes]]:
    """A snapshot, and updates that follow one another."""
    encoder, stream = Encoder(), zstandard.ZstdCompressor().compressobj()
    snapshot, updates = encoder.snapshot(noise(WIDTH, HEIGHT, 0)), []
    film, region = FilmEncoder(24, 16, 50), Rect(8, 8, 24, 16)
    for turn in range(5):
        picture = noise(WIDTH, HEIGHT, turn)
        rects = (Rect(turn, 3, 5, 2), Rect(30, turn, 3, 3))
        pixels = stream.compress(split(words(picture), rects).tobytes()) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        still = zstandard.ZstdCompressor().compress(split(words(picture), rects[:1], left=True).tobytes())
        updates.append(
            pack_update(
                Update(
                    (Copy(1, 2, Rect(3, 4, 20, 20)), Copy(30, 30, Rect(0, 0, 9, 9))) if turn % 2 == 0 else (),
                    Film(region, 1, turn == 0, (region, Rect(9, 9, 3, 3))[1:], film.encode(noise(24, 16, turn))) if turn < 4 else None,
                    Exact(rects[:1], still) if turn > 1 else None,
                    Exact(rects, pixels),
                )
            )
        )
    return snapshot, updates


def mutated(rng: random.Random, original: bytes, others: list[bytes]) -> bytes:
    body = bytearray(original)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = min(rng.randrange(len(body) + 1), rng.randrange(len(body) + 1))  # heads matter more than tails
        match rng.randrange(8):
            case 0 if body:
                body[at % len(body)] ^= 1 << rng.randrange(8)
            case 1:
                body[at : at + 1] = rng.randbytes(1)
            case 2:
                body[at : at + 2] = rng.choice(NUMBERS).to_bytes(2, "big")
            case 3:
                del body[at : at + rng.randrange(1, 20)]
            case 4:
                body[at:at] = body[at : at + rng.randrange(1, 40)]
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                body[at : at + rng.randrange(40)] = other[start : start + rng.randrange(60)]
            case 6:
                body[at:at] = rng.randbytes(rng.randrange(1, 12))
            case _:
                del body[at + rng.randrange(200) :]
    return bytes(body)


def sections(update: bytes) -> list[bytes]:
    """The sections of an update, head and body, as far as they can be told apart."""
    parts, at = [], 1
    while at + _SECTION.size <= len(update):
        end = at + _SECTION.size + _SECTION.unpack_from(update, at)[1]
        parts.append(update[at:end])
        at = end
    return parts


def mutated_within(rng: random.Random, original: bytes, others: list[bytes]) -> bytes:
    """Mutate the bodies of sections, and keep the heads true; now and then take one out or exchange it."""
    parts = sections(original)
    victim = rng.randrange(len(parts))
    for at, part in enumerate(parts):
        if at == victim:
            body = mutated(rng, part[_SECTION.size :], others)
            parts[at] = _SECTION.pack(part[0], len(body)) + body
    if rng.random() < 0.2:
        parts[rng.randrange(len(parts))] = rng.choice(sections(rng.choice(others)))
    if rng.random() < 0.2:
        del parts[rng.randrange(len(parts))]
    return bytes((FORMAT,)) + b"".join(parts)


class Bench:
    """A decoder, what it is given, and what it must then show."""

    def __init__(self) -> None:
        self.snapshot, self.updates = seeds()
        self.filmless = [bytes((FORMAT,)) + b"".join(part for part in sections(update) if part[0] != FILM) for update in self.updates]
        self._loaded = Decoder()
        self._loaded.load(self.snapshot)
        self.whole = self.fresh(0)

    def fresh(self, index: int) -> Decoder:
        """A decoder that has taken the snapshot and so many updates. It is copied: to load it each time takes longer than all the rest."""
        decoder = copy.copy(self._loaded)
        decoder._picture = self._loaded.picture.copy()
        for at, update in enumerate(self.updates[:index]):
            decoder.apply(update, restart=at == 0)
        return decoder

    def once(self, seed: int, number: int) -> bool:
        """One execution; whether the mutant was accepted. AssertionError or anything but ScreenError is a find."""
        rng = random.Random((seed << 40) + number)
        if rng.random() < 0.15:
            return self._load(mutated(rng, self.snapshot, self.updates))
        way = mutated if rng.random() < 0.5 else mutated_within
        if rng.random() < 0.9:  # film is most of the time, and little of our own code
            return self._apply(0, way(rng, self.filmless[rng.choice((0, 2))], self.updates), restart=True)
        index = rng.choice((0, 0, 0, 0, 1, 4))
        return self._apply(index, way(rng, self.updates[index], self.updates), restart=index == 0 or rng.random() < 0.3)

    def _load(self, body: bytes) -> bool:
        if not refused(lambda: self.whole.load(body)):
            assert self.whole.picture.shape[2] == 4
            return True
        assert refused(lambda: self.whole.apply(self.updates[0], restart=True)), "applied after a refused snapshot"
        return False

    def _apply(self, index: int, body: bytes, *, restart: bool) -> bool:
        self.whole = self.fresh(index)
        before = self.whole.picture.copy()
        if refused(lambda: self.whole.apply(body, restart=restart)):
            assert np.array_equal(self.whole.picture, before), "a refused update has drawn"
            assert refused(lambda: self.whole.apply(self.updates[0], restart=True)), "applied after a refused update"
            return False
        after = self.whole.picture
        assert after.shape == before.shape
        assert (after[:, :, 3] == 255).all()
        pieces = self.fresh(index)
        for at, part in enumerate(sections(body)):
            pieces.apply(bytes((FORMAT,)) + part, restart=restart and at == 0)
        assert np.array_equal(pieces.picture, after), "whole and piecewise differ"
        return True


def refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except ScreenError as refusal:
        if refusal.name in NAMES:
            return True
        raise
    return False


def run(seed: int, first: int, executions: int, report: Callable[[str], None] = lambda line: None) -> int:
    """So many executions; how many mutants were accepted. Raises AssertionError that names the execution."""
    bench, accepted, start = Bench(), 0, time.monotonic()
    for number in range(500):
        bench.once(seed ^ 0xA5, number)  # what libraries keep for good
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for number in range(first, first + executions):
        try:
            accepted += bench.once(seed, number)
        except BaseException as find:
            find.add_note(f"found by: --seed {seed} --from {number} --executions 1")
            raise
        if number % 1000 == 0:
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - base
            assert grown < GROWTH, f"grown by {grown >> 20} MiB: --seed {seed}, before {number}"
            if number % 50_000 == 0:
                report(f"{number - first:>10,} executions, {accepted:,} accepted, {grown >> 20} MiB grown, {time.monotonic() - start:,.0f} s")
    return accepted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFF)
    parser.add_argument("--from", type=int, default=0, dest="first", help="begin with this execution")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    accepted = run(arguments.seed, arguments.first, arguments.executions, lambda line: print(line, flush=True))
    print(f"{arguments.executions:,} executions, {accepted:,} accepted, no find", file=sys.stdout)


if __name__ == "__main__":
    main()
