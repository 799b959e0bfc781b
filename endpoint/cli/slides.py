"""Slides of our own, for a machine that has neither a desktop nor a picture to share."""

from pathlib import Path
from typing import Final

from endpoint.screen.pictures import SIZE

_INK: Final = "#243b53"
_SLIDES: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    (
        "#fdf6e3",
        "Welcome to Parley",
        ("This machine has no desktop to share, so these slides stand in.", "Name a folder of pictures:  parley up --share FOLDER"),
    ),
    (
        "#e6f4f1",
        "Read by members alone",
        ("Manager and relays carry this picture. They cannot open it.", "The password goes from person to person, never to a server."),
    ),
    (
        "#f3eafa",
        "Pixel for pixel",
        ("Every attendee sees exactly these pixels.", "Whoever comes late sees the whole screen at once."),
    ),
)


def make_slides(folder: Path) -> Path:
    """Draw them as PNG files into a folder, which is made; the folder. Raises OSError."""
    from PIL import Image, ImageDraw, ImageFont

    folder.mkdir(mode=0o700, exist_ok=True)
    width, height = SIZE
    large, small = ImageFont.load_default(72), ImageFont.load_default(30)
    for number, (paper, title, lines) in enumerate(_SLIDES, 1):
        image = Image.new("RGB", SIZE, paper)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, 24, height), fill=_INK)
        draw.text((110, 200), title, fill=_INK, font=large)
        for at, line in enumerate(lines):
            draw.text((114, 340 + 58 * at), line, fill=_INK, font=small)
        for dot in range(len(_SLIDES)):
            left, filled = width - 160 + 32 * dot, dot == number - 1
            draw.ellipse((left, height - 70, left + 14, height - 56), fill=_INK if filled else paper, outline=_INK, width=2)
        image.save(folder / f"{number}.png")
    return folder
