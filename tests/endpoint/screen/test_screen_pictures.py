"""A folder of pictures as a screen."""

from pathlib import Path

import numpy as np
import pytest
import trio.testing
from PIL import Image

from endpoint.screen.picture import ScreenError
from endpoint.screen.pictures import PicturesSource


async def test_pictures_come_in_turn_fitted_and_opaque(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    Image.new("RGB", (2560, 1440), (255, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGBA", (100, 100), (0, 255, 0, 128)).save(tmp_path / "b.png")
    Image.new("RGB", (50, 20), (0, 0, 255)).save(tmp_path / "c.JPG", "jpeg", quality=100)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "notes.txt").write_text("no picture")
    async with PicturesSource(tmp_path, interval=5) as source:
        assert source.geometry == (1280, 720)
        seen = []
        for _ in range(4):
            await source.wait()
            picture, damage = source.grab()
            assert damage is None
            assert picture.shape == (720, 1280, 4)
            assert (picture[:, :, 3] == 255).all()
            seen.append((trio.current_time(), picture[360, 640, :3].tolist(), picture[0, 0, :3].tolist()))
            assert source.grab()[1] == []
    start = seen[0][0]
    assert [round(at - start) for at, _, _ in seen] == [0, 5, 10, 15]
    assert seen[0][1:] == ([0, 0, 255], [0, 0, 255])
    assert np.abs(np.array(seen[1][1]) - [0, 128, 0]).max() < 3
    assert seen[1][2] == [0, 0, 0]
    assert np.abs(np.array(seen[2][1]) - [255, 0, 0]).max() < 3
    assert seen[3][1:] == seen[0][1:]


async def test_one_picture_stands_still(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    Image.new("RGB", (10, 10), (255, 0, 0)).save(tmp_path / "a.png")
    async with PicturesSource(tmp_path, interval=5) as source:
        source.grab()
        with trio.move_on_after(60) as quiet:
            await source.wait()
        assert quiet.cancelled_caught


@pytest.mark.parametrize("exists", [True, False])
async def test_a_folder_without_pictures_is_refused_by_name(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path if exists else tmp_path / "missing"
    with pytest.raises(ScreenError, match="PNG or JPEG") as refusal:
        async with PicturesSource(folder):
            pass
    assert refusal.value.name == "no-pictures"
