"""What we film, a real browser decodes: Chromium's WebCodecs, with the words that docs/screen.md gives."""

import base64
from typing import Any

import numpy as np
import trio
from playwright.sync_api import sync_playwright

from endpoint.screen.picture import blank
from endpoint.screen.vp9 import CODEC, FilmEncoder
from tests.needs import needs

DECODE = """async ([codec, frames]) => {
  const seen = [];
  const decoder = new VideoDecoder({
    output: frame => {
      const canvas = new OffscreenCanvas(frame.displayWidth, frame.displayHeight).getContext('2d');
      canvas.drawImage(frame, 0, 0);
      seen.push([frame.format, frame.displayWidth, frame.displayHeight, Array.from(canvas.getImageData(80, 45, 1, 1).data)]);
      frame.close();
    },
    error: error => seen.push(String(error)),
  });
  decoder.configure({codec, optimizeForLatency: true});
  frames.forEach((frame, at) => decoder.decode(new EncodedVideoChunk({
    type: at ? 'delta' : 'key', timestamp: at, data: Uint8Array.from(atob(frame), letter => letter.charCodeAt(0)),
  })));
  await decoder.flush();
  return seen;
}"""


def decoded(frames: list[bytes]) -> list[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page()
            page.goto("chrome://version")  # WebCodecs wants a secure context
            return list(page.evaluate(DECODE, [CODEC, [base64.b64encode(frame).decode() for frame in frames]]))
        finally:
            browser.close()


async def test_chromium_decodes_film_with_its_colours() -> None:
    needs("chromium", package="chromium")
    down, across = np.mgrid[0:90, 0:160]
    picture, encoder = blank(160, 90), FilmEncoder(160, 90, 20)
    picture[:, :, 0], picture[:, :, 1], picture[:, :, 2] = 40 + down, across, 200 - down
    pictures = [np.ascontiguousarray(np.roll(picture, 3 * turn, axis=1)) for turn in range(4)]
    seen = await trio.to_thread.run_sync(decoded, [encoder.encode(each) for each in pictures])
    assert [frame[:3] for frame in seen] == [["I444", 160, 90]] * 4
    for frame, true in zip(seen, pictures, strict=True):
        assert np.abs(np.array(frame[3][:3]) - true[45, 80, 2::-1].astype(int)).max() <= 6
