"""The whole meeting in separate processes, and that its judge can say no."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import zstandard

from endpoint.demo import taps
from endpoint.demo.desktop import canary_pixels
from endpoint.demo.run import Story, Verdict
from tests.needs import needs


class FakeMember:
    def __init__(self, *lines: tuple[str, str]) -> None:
        self.lines = [{"event": "chat", "name": name, "text": text} for name, text in lines]

    def heard(self, event: str) -> list[dict[str, str]]:
        return self.lines


def test_G02_G04_G12_G22_G26_B01_B06_a_whole_meeting_holds_what_is_promised() -> None:
    needs("Xvfb", package="xvfb")
    needs("xterm", package="xterm")
    done = subprocess.run([sys.executable, "-m", "endpoint.cli", "demo", "--json"], capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert figures["exact"] == 1
    assert figures["chat_sent"] >= 100
    assert figures["chat_lost"] == figures["chat_doubled"] == figures["canaries_found"] == 0
    assert {"join_ms_p50", "key_to_pixel_ms_p50", "key_to_pixel_ms_p95", "admission_cpu_ms"} <= figures.keys()


def test_canaries_are_found_plain_and_behind_zstd(tmp_path: Path) -> None:
    pixels = canary_pixels()
    wanted = taps.canaries({"chat": "the magic words"}, pixels)
    assert taps.find(wanted, [tmp_path]) == []
    (tmp_path / "plain").write_bytes(b"\0" * 100 + b"the magic words")
    packed = zstandard.ZstdCompressor().compress(b"before " + pixels[0].tobytes())
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "packed").write_bytes(b"junk" + packed + b"more junk")
    (tmp_path / "wide").write_bytes("the magic words".encode("utf-16-le"))
    (tmp_path / "rgb").write_bytes(np.ascontiguousarray(pixels[0, :, 2::-1]).tobytes())
    found = taps.find(wanted, [tmp_path])
    assert {name.split(" in ")[1].removesuffix(" (zstd)") for name in found} == {"plain", "packed", "wide", "rgb"}


def judged(**members: FakeMember) -> Verdict:
    story = Story.__new__(Story)
    story.verdict = Verdict()
    story.members = members  # type: ignore[assignment]
    story.sent = [("a", "1"), ("b", "2"), ("a", "3")]
    story.judge_chat("late", 1)
    return story.verdict


def test_the_judge_sees_lost_doubled_disordered_and_early_lines() -> None:
    whole = FakeMember(("a", "1"), ("b", "2"), ("a", "3"))
    late = FakeMember(("b", "2"), ("a", "3"))
    assert not judged(a=whole, b=whole, late=late).wrong
    assert judged(a=FakeMember(("a", "1"), ("b", "2")), b=whole, late=late).figures["chat_lost"] == 1
    assert judged(a=FakeMember(("a", "1"), ("b", "2"), ("b", "2"), ("a", "3")), b=whole, late=late).figures["chat_doubled"] == 1
    assert judged(a=FakeMember(("a", "3"), ("b", "2"), ("a", "1")), b=whole, late=late).wrong
    assert judged(a=whole, b=whole, late=whole).wrong
