"""What a host shares: its desktop or a part of it, a desktop of its own, or a folder of pictures. An explicit choice, or the first of these
that there is."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
import trio

from endpoint.cli.slides import make_slides
from endpoint.screen.picture import ScreenError
from endpoint.screen.pictures import PicturesSource
from endpoint.screen.source import Source
from endpoint.screen.x11 import X11Source, parse_part
from endpoint.screen.xvfb import available, xvfb_desktop

log = structlog.get_logger()

AUTO: Final = "auto"
DESKTOP: Final = "desktop"
XVFB: Final = "xvfb"


@asynccontextmanager
async def open_share(share: str, display: str, scratch: Path, excluded: Sequence[str] = ()) -> AsyncIterator[Source]:
    """A source that has been tried once, not entered. `scratch`: a private directory for slides of our own. excluded: programs of the
    desktop that are never shown.

    Raises ScreenError: `no-display`, `unsupported-display`, `missing-xvfb`, `no-pictures`,
    `cannot-write-picture` and what else stands in the way.
    """
    kind = await _choose(display) if share == AUTO else share
    part = parse_part(kind)
    if kind == XVFB:
        async with xvfb_desktop() as own:
            yield X11Source(own)
        return
    if part is not None:
        source: Source = X11Source(display or None, part, excluded)
    elif kind == AUTO:
        try:
            source = PicturesSource(await trio.to_thread.run_sync(make_slides, scratch / "slides"))
        except OSError as error:  # the disk is full, say
            raise ScreenError("cannot-write-picture", f"Slides cannot be written to {scratch}: {error.strerror}. Make room there.") from None
    else:
        source = PicturesSource(Path(kind))
    await _try(source)
    yield source


async def _choose(display: str) -> str:
    """DESKTOP, XVFB, or AUTO for slides of our own. A display that was named and does not answer is not passed over."""
    try:
        await _try(X11Source(display or None))
    except ScreenError as error:
        if display:
            raise
        log.info("no-desktop", why=error.name)
        return XVFB if available() else AUTO
    return DESKTOP


async def _try(source: Source) -> None:
    async with source:
        pass
