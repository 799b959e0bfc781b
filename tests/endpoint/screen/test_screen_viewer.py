"""The PNG that a viewer keeps fresh."""

import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from endpoint.screen.picture import Rect, ScreenError, blank
from endpoint.screen.viewer import PngViewer, png

SOME = [Rect(0, 0, 1, 1)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_B06_the_file_has_the_very_pixels(width: int, height: int, seed: int) -> None:
    picture = blank(width, height)
    picture[:, :, :3] = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    with Image.open(io.BytesIO(png(picture))) as image:
        image.load()
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), picture[:, :, 2::-1])


async def test_the_newest_picture_wins_at_a_bounded_rate(tmp_path: Path, mock_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    path, picture = tmp_path / "screen.png", blank(20, 10)
    viewer = PngViewer(path, per_second=2)
    nursery.start_soon(viewer.run)
    for turn in range(4):
        for shade in range(50):
            picture[:, :, 0] = 50 * turn + shade
            viewer.show(picture, SOME)
        mock_clock.jump(0.02)
        await until_written(viewer, turn + 1)
        assert blue(path) == 50 * turn + 49
        picture[:, :, 0] = 0
        viewer.show(picture, SOME)
        mock_clock.jump(0.49)
        await trio.testing.wait_all_tasks_blocked()
        assert viewer.written == turn + 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["screen.png"]


async def test_no_change_means_no_file(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    viewer = PngViewer(tmp_path / "screen.png")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer.run)
        viewer.show(blank(2, 2), [])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


async def test_the_last_picture_is_written_at_the_end(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    path, picture = tmp_path / "screen.png", blank(20, 10)
    viewer = PngViewer(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer.run)
        viewer.show(picture, SOME)
        await until_written(viewer, 1)
        picture[:, :, 0] = 77
        viewer.show(picture, SOME)
        nursery.cancel_scope.cancel()
    assert viewer.written == 2
    assert blue(path) == 77


async def test_a_path_that_cannot_be_written_is_reported_once_and_tried_again(
    tmp_path: Path, mock_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    news_in, news = trio.open_memory_channel[ScreenError](1)
    folder = tmp_path / "later"
    viewer = PngViewer(folder / "screen.png", report=news_in.send_nowait)
    nursery.start_soon(viewer.run)
    viewer.show(blank(2, 2), SOME)
    first = await news.receive()
    assert first.name == "cannot-write-picture"
    assert "No such file or directory" in first.sentence
    await until(lambda: viewer.failed == 3, viewer, mock_clock)
    folder.mkdir()
    await until(lambda: viewer.written == 1, viewer, mock_clock)
    assert viewer.trouble is None
    shutil.rmtree(folder)
    await until(lambda: viewer.trouble is not None, viewer, mock_clock)
    again = await news.receive()
    assert again is viewer.trouble
    assert again is not first


async def test_a_full_disk_is_named(tmp_path: Path, mock_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    (tmp_path / f".full.png.{os.getpid()}").symlink_to("/dev/full")
    news_in, news = trio.open_memory_channel[ScreenError](1)
    viewer = PngViewer(tmp_path / "full.png", report=news_in.send_nowait)
    nursery.start_soon(viewer.run)
    viewer.show(blank(2, 2), SOME)
    assert "No space left on device" in (await news.receive()).sentence


async def until_written(viewer: PngViewer, count: int) -> None:
    """The clock stands still, so this waits for the writing thread alone."""
    await until(lambda: viewer.written >= count)


async def until(holds: Callable[[], bool], viewer: PngViewer | None = None, clock: trio.testing.MockClock | None = None) -> None:
    """Wait for the thread; with a viewer and a clock, show it pictures and let time pass besides."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        if viewer is not None and clock is not None:
            viewer.show(blank(2, 2), SOME)
            clock.jump(0.51)
        await trio.lowlevel.checkpoint()


def blue(path: Path) -> int:
    with Image.open(path) as image:
        return int(np.asarray(image)[0, 0, 2])
