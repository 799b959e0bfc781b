"""What is shared when nobody says what: the desktop, else one of our own, else slides of our own."""

from pathlib import Path

import pytest

from endpoint.cli.share import open_share
from endpoint.screen.picture import ScreenError
from endpoint.screen.pictures import PicturesSource
from endpoint.screen.x11 import X11Source
from endpoint.screen.xvfb import xvfb_desktop
from tests.needs import needs


async def test_a_desktop_that_answers_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("Xvfb", package="xvfb")
    async with xvfb_desktop(320, 200, programs=[]) as display:
        monkeypatch.setenv("DISPLAY", display)
        async with open_share("auto", "", tmp_path) as source, source:
            assert source.name == f"desktop {display}, 320 × 200"


async def test_without_one_it_is_a_desktop_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("Xvfb", package="xvfb")
    monkeypatch.setenv("DISPLAY", ":987")
    async with open_share("auto", "", tmp_path) as source, source:
        assert isinstance(source, X11Source)
        assert ":987" not in source.name


async def test_without_xvfb_it_is_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with open_share("auto", "", tmp_path) as source, source:
        assert isinstance(source, PicturesSource)
        assert source.grab()[0].any()
    with pytest.raises(ScreenError) as refused:
        async with open_share("xvfb", "", tmp_path):
            pass
    assert refused.value.name == "missing-xvfb"
    with pytest.raises(ScreenError, match="Make room") as refused:
        async with open_share("auto", "", tmp_path / "absent"):
            pass
    assert refused.value.name == "cannot-write-picture"


async def test_a_display_that_was_named_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ScreenError) as refused:
        async with open_share("auto", ":987", tmp_path):
            pass
    assert refused.value.name == "no-display"
