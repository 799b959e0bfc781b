"""How our windows look: a few colours, one typeface, small things drawn with them. For the windows' processes alone."""

from functools import cache
from typing import Final

import pygame

Colour = tuple[int, int, int]

GROUND: Final[Colour] = (24, 28, 34)
BAR: Final[Colour] = (36, 42, 50)
INK: Final[Colour] = (236, 240, 244)
FAINT: Final[Colour] = (148, 160, 174)
GREY: Final[Colour] = (92, 102, 114)
BLUE: Final[Colour] = (64, 140, 236)
GREEN: Final[Colour] = (86, 196, 132)
AMBER: Final[Colour] = (236, 178, 60)
RED: Final[Colour] = (222, 60, 58)
PINK: Final[Colour] = (255, 150, 146)
FACES: Final = "notosans,dejavusans,liberationsans,arial,helveticaneue,segoeui"


@cache
def font(size: int, *, bold: bool = False) -> pygame.font.Font:
    """`size`: pixels of a line, about."""
    return pygame.font.SysFont(FACES, size, bold=bold)


def text(
    surface: pygame.Surface, words: str, size: int, colour: Colour, at: tuple[int, int], anchor: str, *, bold: bool = False, most: int = 1 << 15
) -> pygame.Rect:
    """Write a line, cut to `most` pixels; where it stands. anchor: the name of a place of `pygame.Rect`."""
    face = font(size, bold=bold)
    if face.size(words)[0] > most:
        while words and face.size(words + "…")[0] > most:
            words = words[:-1]
        words += "…"
    image = face.render(words.replace("\0", ""), True, colour)
    spot = image.get_rect(**{anchor: at})
    surface.blit(image, spot)
    return spot


def chip(surface: pygame.Surface, words: str, colour: Colour, at: tuple[int, int], size: int = 13) -> int:
    """A word on a coloured ground, its left middle at `at`; where it ends."""
    image = font(size, bold=True).render(words, True, GROUND if sum(colour) > 420 else (255, 255, 255))
    ground = pygame.Rect(at[0], at[1] - image.get_height() // 2 - 3, image.get_width() + 18, image.get_height() + 6)
    pygame.draw.rect(surface, colour, ground, border_radius=ground.height // 2)
    surface.blit(image, image.get_rect(center=ground.center))
    return ground.right
