"""The on-air window, a program of its own: `python -m endpoint.screen.light`. Started by `endpoint.screen.pane`, which see.

Small, without a frame, always on top. It stands where the shared part of the display is not, if there is room; else in its upper right
corner, from where it can be dragged. What it says is what is true on the wire: it draws what it is told, and tells what is clicked.

    standard input    {"light": facts}, {"beside": [x, y, width, height]}
    standard output   {"ask": "pause" | "resume" | "stop" | "take-back"}
"""

import json
import os
import sys
from typing import Any, Final

import pygame

from endpoint.screen.inbox import HEARD, Inbox
from endpoint.screen.style import AMBER, BAR, FAINT, GREY, INK, PINK, RED, Colour, chip, font, text

SIZE: Final = (372, 118)
MARGIN: Final = 12
_LOOKS: Final[dict[str, tuple[str, Colour]]] = {"on air": ("● ON AIR", RED), "paused": ("‖ PAUSED", AMBER), "off": ("○ OFF AIR", GREY)}


def corner(beside: list[int], desktops: list[tuple[int, int]]) -> tuple[int, int]:
    """Where the window goes: right of the shared part, left of it, below or above it; else its upper right corner."""
    x, y, width, height = beside
    wide, high = desktops[0][0], max(size[1] for size in desktops)
    total = max(wide, x + width)
    w, h = SIZE[0] + 2 * MARGIN, SIZE[1] + 2 * MARGIN
    if total - (x + width) >= w:
        return x + width + MARGIN, y + MARGIN
    if x >= w:
        return x - w + MARGIN, y + MARGIN
    if high - (y + height) >= h:
        return x + width - w + MARGIN, y + height + MARGIN
    if y >= h:
        return x + width - w + MARGIN, y - h + MARGIN
    return x + width - w + MARGIN, y + MARGIN


class LightWindow:
    """Owned by the main thread."""

    def __init__(self, beside: list[int], inbox: Inbox) -> None:
        self.inbox = inbox
        pygame.display.init()
        pygame.font.init()
        at = corner(beside, pygame.display.get_desktop_sizes())
        self.window = pygame.Window("Parley: on air", SIZE, at, borderless=True, always_on_top=True, utility=True)
        self.facts: dict[str, Any] = {"state": "off", "what": "", "viewers": 0, "rate": "", "behind": "", "holder": "", "note": ""}
        self.buttons: list[tuple[pygame.Rect, str]] = []
        self.grip: tuple[int, int] | None = None

    def draw(self) -> None:
        facts, surface = self.facts, self.window.get_surface()
        state = facts["state"]
        word, colour = _LOOKS[state]
        surface.fill(BAR)
        pygame.draw.rect(surface, colour, surface.get_rect(), 3)
        pygame.draw.rect(surface, colour, (0, 0, 8, SIZE[1]))
        end = chip(surface, word, colour, (22, 26), 16)
        viewers = facts["viewers"]
        text(
            surface,
            f"{viewers} watching" if viewers else "nobody watches",
            14,
            INK,
            (end + 12, 26),
            "midleft",
            bold=True,
            most=SIZE[0] - end - 24,
        )
        text(surface, facts["what"], 14, INK, (22, 53), "midleft", most=SIZE[0] - 36)
        if facts["holder"]:
            text(surface, f"{facts['holder']} has your mouse and keyboard", 13, PINK, (22, 73), "midleft", bold=True, most=SIZE[0] - 36)
        else:
            line = " · ".join(part for part in (facts["rate"], facts["behind"], facts["note"]) if part)
            text(surface, line, 13, FAINT, (22, 73), "midleft", most=SIZE[0] - 36)
        self.buttons = []
        asks = [("Resume", "resume", AMBER)] if state == "paused" else [("Pause", "pause", GREY)]
        asks.append(("Stop", "stop", GREY))
        if facts["holder"]:
            asks.append(("Take back (Pause key)", "take-back", RED))
        x = 22
        for label, ask, ground in asks if state != "off" else []:
            room = SIZE[0] - x - 14
            width = min(font(14, bold=True).size(label)[0] + 22, room)
            spot = pygame.Rect(x, 86, width, 24)
            pygame.draw.rect(surface, ground, spot, border_radius=5)
            text(surface, label, 14, (255, 255, 255) if ground is not AMBER else BAR, spot.center, "center", bold=True, most=width - 10)
            self.buttons.append((spot, ask))
            x = spot.right + 8
        self.window.flip()

    def handle(self, event: pygame.event.Event) -> bool:
        if event.type == HEARD:
            facts = self.inbox.take()
            if facts is None:
                return False
            self.facts = facts.get("light", self.facts)
            self.draw()
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            for spot, ask in self.buttons:
                if spot.collidepoint(event.pos):
                    self.out(ask)
                    return True
            self.grip = event.pos
        elif event.type == pygame.MOUSEBUTTONUP:
            self.grip = None
        elif event.type == pygame.MOUSEMOTION and self.grip is not None:
            x, y = self.window.position
            self.window.position = (x + event.pos[0] - self.grip[0], y + event.pos[1] - self.grip[1])
        elif event.type == pygame.KEYDOWN and event.key in (pygame.K_SPACE, pygame.K_p):
            self.out("resume" if self.facts["state"] == "paused" else "pause")
        elif event.type in (pygame.WINDOWEXPOSED, pygame.WINDOWSHOWN):
            self.draw()
        return True

    def out(self, ask: str) -> None:
        sys.stdout.write(json.dumps({"ask": ask}) + "\n")
        sys.stdout.flush()

    def run(self) -> None:
        self.draw()
        while self.handle(pygame.event.wait()):
            pass


if __name__ == "__main__":
    first = json.loads(sys.stdin.readline())
    light = LightWindow(first["beside"], Inbox())
    light.facts = first.get("light", light.facts)
    light.inbox.open(sys.stdin)
    light.run()
    os._exit(0)  # the reader thread sits in a read
