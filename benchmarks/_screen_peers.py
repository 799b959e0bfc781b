"""The peers of benchmarks/screen.py: two video codecs through PyAV, and TigerVNC live behind a counter of bytes."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from benchmarks import _screen_corpus as corpus
from endpoint.screen.picture import Picture

_OPTIONS = {
    "vp9": (
        "libvpx-vp9",
        "vp9",
        {"deadline": "realtime", "cpu-used": "6", "lag-in-frames": "0", "auto-alt-ref": "0", "b": "0", "tune-content": "screen"},
    ),
    "x264": ("libx264", "h264", {"preset": "fast", "tune": "zerolatency"}),
}


def video(recorded: corpus.Recording, at_most: int | None, codec: str, quality: int) -> tuple[float, list[float], float]:
    """(bytes, CPU seconds) per picture that changed, and the mean squared error of each. The first picture is not counted, nor is it for us."""
    encoder_name, decoder_name, options = _OPTIONS[codec]
    encoder: Any = av.CodecContext.create(encoder_name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = recorded.width, recorded.height, "yuv444p"
    encoder.time_base, encoder.thread_count, encoder.gop_size = Fraction(1, corpus.FPS), 1, 10_000
    encoder.options = {**options, "crf": str(quality), "colorspace": "bt709", "color_range": "pc"}
    decoder: Any = av.CodecContext.create(decoder_name, "r")
    decoder.thread_count = 1
    total, errors, spent, count = 0, [], 0.0, 0
    waiting: list[Picture] = []

    def seen(frames: list[Any]) -> None:
        for frame in frames:
            bgra = frame.reformat(format="bgra", src_colorspace=Colorspace.ITU709, src_color_range=ColorRange.JPEG).to_ndarray()
            true = waiting.pop(0)
            errors.append(float(np.mean(np.square(bgra[:, :, :3].astype(np.int16) - true[:, :, :3], dtype=np.int32))))

    for number, (picture, _, changed) in enumerate(corpus.pictures(recorded, at_most)):
        if number and not changed:
            continue
        before = time.process_time()
        frame = av.VideoFrame.from_ndarray(picture, format="bgra").reformat(
            format="yuv444p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.JPEG
        )
        frame.pts = number
        packets = encoder.encode(frame)
        spent += (time.process_time() - before) if number else 0.0
        waiting.append(picture.copy())
        total += sum(packet.size for packet in packets) if number else 0
        count += number > 0
        for packet in packets:
            seen(decoder.decode(av.Packet(bytes(packet))))
    seen(decoder.decode(None))
    return total / max(count, 1), errors[1:], spent / max(count, 1)


def has_tigervnc() -> bool:
    return all(shutil.which(program) for program in ("Xvnc", "xtigervncviewer", "Xvfb"))


class _Counter:
    """A relay on the loopback between a viewer and a server, which counts what the server sends."""

    def __init__(self, port: int) -> None:
        self.bytes = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._to = port
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        viewer, _ = self._server.accept()
        server = socket.create_connection(("127.0.0.1", self._to))
        threading.Thread(target=self._pass, args=(viewer, server, False), daemon=True).start()
        self._pass(server, viewer, True)

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while part := source.recv(1 << 16):
                if counted:
                    self.bytes += len(part)
                sink.sendall(part)
        except OSError:
            pass
        for end in (source, sink):
            end.close()


@contextmanager
def _program(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _free_display() -> int:
    number = 60
    while os.path.exists(f"/tmp/.X11-unix/X{number}") or os.path.exists(f"/tmp/.X{number}-lock"):
        number += 1
    return number


def _wait_for(path: str) -> None:
    until = time.monotonic() + 20
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.05)
    time.sleep(0.5)


def tight(scene: corpus.Scene) -> int:
    """Bytes that Xvnc sends to its viewer while the scene is played: Tight, no JPEG, twelve pictures a second at most."""
    display = _free_display()
    port = 5900 + display
    size = f"{corpus.WIDTH}x{corpus.HEIGHT}"
    options = ["-geometry", size, "-depth", "24", "-SecurityTypes", "None", "-rfbport", str(port), "-localhost", "-FrameRate", str(corpus.FPS)]
    with _program("Xvnc", f":{display}", *options, "-AcceptSetDesktopSize=0"):
        _wait_for(f"/tmp/.X11-unix/X{display}")
        window = display + 1
        with _program("Xvfb", f":{window}", "-screen", "0", f"{corpus.WIDTH + 80}x{corpus.HEIGHT + 120}x24", "-nolisten", "tcp"):
            _wait_for(f"/tmp/.X11-unix/X{window}")
            counter = _Counter(port)
            viewer = ["-PreferredEncoding=Tight", "-NoJPEG=1", "-AutoSelect=0", "-FullColor=1", "-RemoteResize=0", "-Shared=1"]
            with (
                _program("xtigervncviewer", *viewer, f"127.0.0.1::{counter.port}", DISPLAY=f":{window}"),
                corpus.running(scene, f":{display}"),
            ):
                time.sleep(1.0)
                before = counter.bytes
                corpus.play(scene, f":{display}")
                time.sleep(0.5)
                sent = counter.bytes - before
                if not before:
                    raise RuntimeError("the viewer of TigerVNC got nothing")
                return sent
