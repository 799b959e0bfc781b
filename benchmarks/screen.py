"""How many bytes a shared screen takes, and how much time: ours beside x264, VP9 and TigerVNC, on the same scenes in the same run.

The scenes (_screen_corpus.py) are seven recordings of 1920 × 1080 at 12 pictures a second. Ours and both video codecs encode the recordings;
TigerVNC's Xvnc, with its own viewer behind a counter of bytes, plays the same scripts live (Tight, lossless). Bytes are per picture
that changed. Ours is decoded again, and must equal the recording wherever the encoder says so.

    bytes_X_vs_tight       ours, lossless, of Tight's, lossless
    bytes_X_vs_video       ours, lossless, of the better of x264 and VP9, both 4:4:4 at a quality of 20
    bytes_X_vs_vp9         ours until a picture stands still, of VP9's at the same PSNR (interpolated between qualities)
    exact_after_X          seconds from the last change until every pixel is exact
    cpu_ms_X               milliseconds of the encoder's CPU, all of its threads, per picture that changed
    decode_ms_X            the same of the decoder
    …_4k                   the same at 3840 × 2160 (--fine): the scene in each quarter of the screen, all of them at once
    alone_X_bytes, …_cpu_ms, …_s   the recording's last picture after its first, looked at until it is exact: all of its bytes and CPU, seconds

What `photo` compares: its pictures change twice a second, sooner than film is made exact, so nearly all of `bytes_photo` and `cpu_ms_photo` is
film. And film of more than a million pixels has half its width and height: it cannot come nearer than some 34 dB here, and VP9 of the same
PSNR is a coarse one (quantiser 50 of 63). Who leafs through photographs gets that; who looks at one has every pixel 0.6 s later, for the
megabytes that `alone_photo_bytes` tells.

Video peers: libvpx-vp9 4:4:4, realtime, cpu-used 6, screen content; libx264 4:4:4, preset fast, zerolatency. TigerVNC needs the Debian packages
tigervnc-standalone-server and tigervnc-viewer; without them its figures are left out.
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks import _screen_corpus as corpus
from benchmarks import _screen_peers as peers
from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.picture import Picture, Rect, blank

LOSSLESS = ("term", "edit", "scroll", "window")
LOSSY = ("slides", "photo", "video")
QUALITIES = (58, 50, 42, 32, 20, 10, 4)
"""Of VP9, the worst first; tried until one is as like the picture as ours."""


@dataclass
class Ours:
    """What our codec did with a recording."""

    changed: int = 0
    bytes: int = 0  # of updates before the picture stood still
    still_bytes: int = 0  # of what made it exact
    cpu: float = 0.0
    decoding: float = 0.0
    errors: list[float] = field(default_factory=list)  # mean squared error after each picture that changed
    worst_wait: float = 0.0
    slowest: float = 0.0


class Pair:
    """A presenter's encoder and a viewer's decoder, and the CPU of each."""

    def __init__(self, first: Picture) -> None:
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.load(self.encoder.snapshot(first))
        self.encoding = self.decoding = 0.0
        self._restart = True

    def show(self, picture: Picture, damage: list[Rect] | None, now: float) -> int:
        """One update there; its bytes."""
        before = time.process_time()
        update = self.encoder.update(picture, damage, restart=self._restart, now=now)
        encoded = time.process_time()
        self.encoding += encoded - before
        if update is None:
            return 0
        self.decoder.apply(update, restart=self._restart)
        self.decoding += time.process_time() - encoded
        self._restart = False
        return len(update)

    def settle(self, picture: Picture, now: float, until: float) -> tuple[int, float]:
        """What is owed and what stands still, as far as it is due before `until`: (bytes, when the last of it was)."""
        total = 0
        while self.encoder.owed or (self.encoder.due is not None and self.encoder.due < until):
            now = max(now + 1 / 60, self.encoder.due or now)
            total += self.show(picture, [], now)
        return total, now


def error(seen: Picture, true: Picture) -> float:
    if np.array_equal(seen, true):
        return 0.0
    difference = seen[:, :, :3].astype(np.int16) - true[:, :, :3]
    return float(np.mean(np.square(difference, dtype=np.int32)))


def psnr(errors: Sequence[float]) -> float:
    mean = sum(errors) / len(errors)
    return 10 * math.log10(65025 / mean) if mean else 99.0


Played = Iterator[tuple[Picture, list[Rect] | None, bool]]


def fourfold(played: Played) -> Played:
    """The same on a screen with twice the width and height, in each quarter of it."""
    large: Picture | None = None
    for picture, damage, changed in played:
        height, width = picture.shape[:2]
        if large is None:
            large = blank(2 * width, 2 * height)
        corners = [(x, y) for y in (0, height) for x in (0, width)]
        for x, y in corners if changed else ():
            large[y : y + height, x : x + width] = picture
        yield large, None if damage is None else [r._replace(x=r.x + x, y=r.y + y) for r in damage for x, y in corners], changed


def ours(played: Played) -> Ours:
    """Encode it, as a presenter would, and check it, as a viewer would."""
    result, changed_at = Ours(), 0.0
    pair = Pair(next(played)[0])
    for number, (picture, damage, changed) in enumerate(played, 1):
        now, before = number / corpus.FPS, pair.encoding
        if changed:
            changed_at = now
        result.changed += changed
        if changed or damage:
            result.bytes += pair.show(picture, damage, now)
        if changed:
            result.errors.append(error(pair.decoder.picture, picture))
        vague = not pair.encoder.exact
        more, when = pair.settle(picture, now, (number + 1) / corpus.FPS - 0.001)
        result.still_bytes += more
        if vague and pair.encoder.exact:
            result.worst_wait = max(result.worst_wait, when - changed_at)
        result.slowest = max(result.slowest, pair.encoding - before)
        assert not pair.encoder.exact or np.array_equal(pair.decoder.picture, picture), f"picture {number} is not what it should be"
    result.cpu, result.decoding = pair.encoding, pair.decoding
    return result


def alone(recorded: corpus.Recording, at_most: int | None) -> tuple[int, float, float]:
    """The last picture after the first, looked at until it is exact: (bytes, CPU seconds, seconds)."""
    played = corpus.pictures(recorded, at_most)
    pair = Pair(next(played)[0])
    *_, (picture, _, _) = played
    total = pair.show(picture, None, 0.0)
    more, when = pair.settle(picture, 0.0, math.inf)
    assert np.array_equal(pair.decoder.picture, picture)
    return total + more, pair.encoding, when


def equal_quality(points: list[tuple[float, float]], wanted: float) -> float:
    """Bytes of a codec at a PSNR, from its (PSNR, bytes) at several qualities; log bytes are nearly straight between them.

    Beyond its best quality its bytes there: that flatters it, since more likeness would have cost it more.
    """
    points = sorted(points)
    for (low, few), (high, many) in itertools.pairwise(points):
        if low <= wanted <= high:
            return math.exp(math.log(few) + (math.log(many) - math.log(few)) * (wanted - low) / (high - low))
    return points[0][1] if wanted < points[0][0] else points[-1][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    parser.add_argument("--quick", action="store_true", help="the first four seconds of each scene, no TigerVNC")
    parser.add_argument("--only", default=",".join(LOSSLESS + LOSSY), help="which scenes, with commas between")
    parser.add_argument("--peers", default="video,tight", help="whom to run beside ours: video, tight; empty for none")
    parser.add_argument("--fine", action="store_true", help="ours at 3840 × 2160 too")
    parser.add_argument("--record", action="store_true", help="record the scenes anew")
    arguments = parser.parse_args()
    lacking = corpus.missing()
    if lacking:
        sys.exit(f"The scenes need these Debian packages: {' '.join(lacking)}")
    at_most = 48 if arguments.quick else None
    figures: dict[str, float] = {}
    for scene in corpus.scenes():
        name = scene.name
        if name not in arguments.only.split(","):
            continue
        recorded = corpus.recording(scene, arguments.record)
        mine = ours(corpus.pictures(recorded, at_most))
        each = mine.bytes / max(mine.changed, 1)
        figures[f"bytes_{name}"] = round(each)
        figures[f"cpu_ms_{name}"] = round(1000 * mine.cpu / max(mine.changed, 1), 1)
        figures[f"decode_ms_{name}"] = round(1000 * mine.decoding / max(mine.changed, 1), 1)
        line = f"{name:7} {mine.changed:4} changed {each:10,.0f} bytes each, "
        line += f"cpu {figures[f'cpu_ms_{name}']:6.1f} ms (worst {1000 * mine.slowest:4.0f})"
        if name in LOSSY:
            figures[f"psnr_{name}"] = round(psnr(mine.errors), 1)
            figures[f"exact_after_{name}"] = round(mine.worst_wait, 2)
            figures[f"bytes_{name}_exact"] = round(mine.still_bytes / max(mine.changed, 1))
            line += f", {psnr(mine.errors):.1f} dB, exact after {mine.worst_wait:.2f} s at most, for {mine.still_bytes:,} bytes in all"
            whole, cpu, seconds = alone(recorded, at_most)
            figures |= {f"alone_{name}_bytes": whole, f"alone_{name}_cpu_ms": round(1000 * cpu, 1), f"alone_{name}_s": round(seconds, 2)}
        elif any(mine.errors):
            line += f", {sum(bool(e) for e in mine.errors)} not exact at once ({mine.still_bytes} later)"
        print(line, flush=True)
        if arguments.fine:
            fine = ours(fourfold(corpus.pictures(recorded, at_most)))
            each_ms = [1000 * spent / max(fine.changed, 1) for spent in (fine.cpu, fine.decoding)]
            figures |= {f"cpu_ms_{name}_4k": round(each_ms[0], 1), f"decode_ms_{name}_4k": round(each_ms[1], 1)}
            line = f"        3840 × 2160 {fine.bytes / max(fine.changed, 1):10,.0f} bytes each, cpu {each_ms[0]:6.1f} ms "
            line += f"(worst {1000 * fine.slowest:4.0f}), decoding {each_ms[1]:6.1f} ms, exact after {fine.worst_wait:.2f} s at most"
            print(line + (f", {psnr(fine.errors):.1f} dB" if any(fine.errors) else ""), flush=True)
        if "video" in arguments.peers:
            if name in LOSSLESS:
                video = {codec: peers.video(recorded, at_most, codec, 20) for codec in ("vp9", "x264")}
                for codec, (bytes_each, errors, cpu) in video.items():
                    figures[f"bytes_{name}_{codec}"] = round(bytes_each)
                    print(f"        {codec:5} {bytes_each:10,.0f} bytes each, cpu {1000 * cpu:6.1f} ms, {psnr(errors):.1f} dB", flush=True)
                figures[f"bytes_{name}_vs_video"] = round(each / min(bytes_each for bytes_each, _, _ in video.values()), 3)
            else:
                points = []
                for quality in QUALITIES:
                    bytes_each, errors, cpu = peers.video(recorded, at_most, "vp9", quality)
                    points.append((psnr(errors), bytes_each))
                    print(
                        f"        vp9 at {quality} {bytes_each:10,.0f} bytes each, cpu {1000 * cpu:6.1f} ms, {psnr(errors):.1f} dB", flush=True
                    )
                    if psnr(errors) >= psnr(mine.errors):
                        break
                figures[f"bytes_{name}_vs_vp9"] = round(each / equal_quality(points, psnr(mine.errors)), 3)
        if "tight" in arguments.peers and not arguments.quick and name in LOSSLESS and peers.has_tigervnc():
            total = peers.tight(scene)
            tight = total / sum(frame.changed for frame in recorded.frames[1:])
            figures[f"bytes_{name}_tight"] = round(tight)
            figures[f"bytes_{name}_vs_tight"] = round(each / tight, 3)
            print(f"        tight {tight:10,.0f} bytes each", flush=True)
    for key, value in figures.items():
        print(f"{key:28} {value:>12,}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
