"""A folder of pictures as a slide show: what is shared where there is no screen at all.

PNG and JPEG files in the order of their names, each fitted into 1280 × 720, the next one after `interval` seconds. The
folder is read anew each time, so what is added appears. A file that is no picture is passed over.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import structlog
import trio

from endpoint.screen.picture import Picture, Rect, ScreenError, blank

log = structlog.get_logger()

SIZE = (1280, 720)
MOST_PIXELS = 80_000_000
"""Larger pictures are passed over: they would take more memory than a slide is worth."""
SUFFIXES = (".png", ".jpg", ".jpeg")


class PicturesSource:
    """The folder as `source.Source`. interval: seconds that each picture stands."""

    def __init__(self, folder: Path, interval: float = 8.0) -> None:
        self._folder = folder
        self._interval = interval
        self._picture: Picture = blank(*SIZE)
        self._shown: Path | None = None
        self._new = True  # not grabbed yet
        self._due = 0.0  # when the next one comes, on trio's clock

    @property
    def name(self) -> str:
        return f"pictures in {self._folder}"

    @property
    def geometry(self) -> tuple[int, int]:
        return SIZE

    async def __aenter__(self) -> Self:
        """Raises ScreenError `no-pictures` if there is none that can be shown."""
        if not await self._turn():
            raise ScreenError("no-pictures", f"There is no PNG or JPEG picture in {self._folder}. Put one there, or name another folder.")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    async def wait(self) -> None:
        """Return when the next picture is there."""
        await trio.lowlevel.checkpoint()
        while not self._new:
            await trio.sleep_until(self._due)
            await self._turn()

    def grab(self) -> tuple[Picture, list[Rect] | None]:
        """See `Source.grab`."""
        new, self._new = self._new, False
        return self._picture, None if new else []

    async def _turn(self) -> bool:
        """Show the next picture that can be shown; False if there is none. Pictures are read in a thread."""
        self._due = trio.current_time() + self._interval
        found = await trio.to_thread.run_sync(_next_picture, self._folder, self._shown)
        if found is None:
            return False
        path, picture = found
        self._new = self._new or path != self._shown or not np.array_equal(picture, self._picture)
        self._shown, self._picture = path, picture
        return True


def _next_picture(folder: Path, after: Path | None) -> tuple[Path, Picture] | None:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError:
        return None
    later = [path for path in paths if after is None or path > after]
    for path in later + paths[: len(paths) - len(later)]:
        picture = _read(path)
        if picture is not None:
            return path, picture
    return None


def _read(path: Path) -> Picture | None:
    """One picture, fitted and centred on black; None if it cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError("too large")
            image.draft("RGB", SIZE)  # lets a large JPEG be decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image).convert("RGBA")
            fitted = ImageOps.contain(upright, SIZE)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        log.warning("picture-passed-over", file=path.name, why=type(error).__name__)
        return None
    canvas = Image.new("RGBA", SIZE, (0, 0, 0, 255))
    canvas.alpha_composite(fitted, ((SIZE[0] - fitted.width) // 2, (SIZE[1] - fitted.height) // 2))
    picture = np.ascontiguousarray(np.asarray(canvas)[:, :, [2, 1, 0, 3]])
    picture[:, :, 3] = 255
    return picture
