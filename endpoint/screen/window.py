"""The viewer's window, a program of its own: `python -m endpoint.screen.window FD`. Started by `endpoint.screen.pane`, which see.

    standard input    {"size", "rects"} (the picture in the memory FD has changed there), {"pointer"}, {"shape"}, {"caption"}, {"folder"}
    standard output   {"touch": event} (hands, while they are lent), {"told": text}

Pixels stay crisp: the picture is shown in whole multiples of its size, or, where it does not fit, made smaller with every pixel weighed. The
window sleeps until its person or its inbox wakes it.
"""

import base64
import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import pygame

from endpoint.screen.inbox import HEARD, Inbox
from endpoint.screen.picture import MAX_BYTES
from endpoint.screen.style import AMBER, BAR, BLUE, FAINT, GREEN, GREY, GROUND, INK, RED, chip, font, text

BAR_HEIGHT: Final = 34
SETTLE_MS: Final = 150
"""After so long without news a picture that was made smaller is drawn anew as a whole: parts of it meet with seams."""
NOTICE_S: Final = 4.0
LARGEST: Final = 0.9
"""Of the display that a new window may take."""
STATES: Final[dict[str, tuple[str, tuple[int, int, int]]]] = {
    "live": ("LIVE", BLUE),
    "paused by the presenter": ("PAUSED", AMBER),
    "the presenter is away": ("AWAY", AMBER),
    "reconnecting": ("RECONNECTING", AMBER),
    "ended": ("ENDED", GREY),
    "nobody presents": ("WAITING", GREY),
    "waiting for the presenter's screen": ("WAITING", GREY),
}
HELP: Final = (
    ("F11, F", "full screen"),
    ("1", "actual size; drag or arrows move it"),
    ("0", "fit the window"),
    ("S, F12", "save a picture"),
    ("B", "hide the bar"),
    ("H, F1", "this help"),
    ("Esc", "leave full screen; Ctrl-W closes the window"),
)
KEYSYMS: Final[dict[int, int]] = {
    pygame.K_RETURN: 0xFF0D, pygame.K_KP_ENTER: 0xFF8D, pygame.K_TAB: 0xFF09, pygame.K_BACKSPACE: 0xFF08, pygame.K_ESCAPE: 0xFF1B,
    pygame.K_DELETE: 0xFFFF, pygame.K_HOME: 0xFF50, pygame.K_LEFT: 0xFF51, pygame.K_UP: 0xFF52, pygame.K_RIGHT: 0xFF53,
    pygame.K_DOWN: 0xFF54, pygame.K_PAGEUP: 0xFF55, pygame.K_PAGEDOWN: 0xFF56, pygame.K_END: 0xFF57, pygame.K_INSERT: 0xFF63,
    pygame.K_MENU: 0xFF67, pygame.K_LSHIFT: 0xFFE1, pygame.K_RSHIFT: 0xFFE2, pygame.K_LCTRL: 0xFFE3, pygame.K_RCTRL: 0xFFE4,
    pygame.K_LALT: 0xFFE9, pygame.K_RALT: 0xFFEA, pygame.K_LMETA: 0xFFEB, pygame.K_RMETA: 0xFFEC, pygame.K_PRINTSCREEN: 0xFF61,
    **{pygame.K_F1 + n: 0xFFBE + n for n in range(12)},
}  # fmt: skip
"""What a key that gives no text means, as a keysym."""
_CHORD: Final = pygame.KMOD_CTRL | pygame.KMOD_ALT | pygame.KMOD_META


class Window:
    """Owned by the main thread."""

    def __init__(self, descriptor: int, inbox: Inbox) -> None:
        self.inbox = inbox
        pygame.display.init()
        pygame.font.init()
        pygame.display.set_caption("Parley")
        self.memory = mmap.mmap(descriptor, MAX_BYTES)
        self.picture: pygame.Surface | None = None
        self.shape = (arrow(), 1, 1)  # until the presenter's is known
        self.pointer: tuple[int, int, bool] = (0, 0, False)
        self.caption: dict[str, Any] = {"title": "", "presenter": "", "state": "nobody presents", "badge": "", "lent": False, "notice": ""}
        self.folder = Path()
        self.actual = self.full = self.help = self.seams = False
        self.bar = True
        self.offset = [0, 0]  # of the view over a picture that is larger
        self.notice = ""
        self.notice_until = 0.0
        self.held: dict[int, int] = {}  # keys that went out, by SDL's key
        self.screen = pygame.display.set_mode((960, 600), pygame.RESIZABLE)
        self.window = pygame.Window.from_display_module()  # to set another mode would make another window, elsewhere
        self.sized = False  # fitted to the first picture
        pygame.key.set_repeat(0)

    # --- what the parent says ---

    def take(self, facts: dict[str, Any]) -> None:
        dirty: list[pygame.Rect] = []
        everything = False
        if "folder" in facts:
            self.folder = Path(facts["folder"])
        if "caption" in facts:
            old, self.caption = self.caption, facts["caption"]
            if self.caption["notice"] and self.caption["notice"] != old["notice"]:
                self.tell(self.caption["notice"])
            pygame.display.set_caption(f"{self.caption['title'] or 'Parley'} – Parley")
            everything = True
        if "shape" in facts:
            width, height, hot_x, hot_y, pixels = facts["shape"]
            self.shape = (pygame.image.frombytes(base64.b64decode(pixels), (width, height), "RGBA"), hot_x, hot_y)
        if "pointer" in facts:
            dirty += self.pointer_area()
            self.pointer = tuple(facts["pointer"])
            dirty += self.pointer_area()
        if "size" in facts:
            size = tuple(facts["size"])
            if self.picture is None or self.picture.get_size() != size:
                view = memoryview(self.memory)[: 4 * size[0] * size[1]]
                self.picture = pygame.image.frombuffer(view, size, "BGRA")
                self.picture.set_alpha(None)
                self.first_size(size)
                everything = True
            dirty += [pygame.Rect(rect) for rect in facts["rects"]]
        if everything or not self.live:
            self.draw()
        elif dirty:
            self.draw_parts(dirty)

    def first_size(self, size: tuple[int, int]) -> None:
        """Give the window the picture's size, where there is room."""
        if self.sized or self.full:
            return
        self.sized = True
        most_x, most_y = (int(LARGEST * side) for side in pygame.display.get_desktop_sizes()[0])
        width, height = size[0], size[1] + BAR_HEIGHT
        shrink = min(1.0, most_x / width, most_y / height)
        side = max(480, int(width * shrink)), max(320, int(height * shrink))
        desktop = pygame.display.get_desktop_sizes()[0]
        self.window.size = side
        self.window.position = max(0, (desktop[0] - side[0]) // 2), max(0, (desktop[1] - side[1]) // 2)
        self.screen = pygame.display.get_surface() or self.screen

    @property
    def live(self) -> bool:
        return self.picture is not None and self.caption["state"] == "live" and not self.help

    def tell(self, words: str) -> None:
        self.notice, self.notice_until = words, time.monotonic() + NOTICE_S

    # --- where things are ---

    @property
    def room(self) -> pygame.Rect:
        """What the picture may take."""
        width, height = self.screen.get_size()
        return pygame.Rect(0, 0, width, height - (BAR_HEIGHT if self.bar else 0))

    @property
    def scale(self) -> float:
        assert self.picture is not None
        width, height = self.picture.get_size()
        if self.actual:
            return 1.0
        fits = min(self.room.width / width, self.room.height / height)
        return float(int(fits)) if fits >= 1 else fits

    @property
    def place(self) -> pygame.Rect:
        """Where the whole picture would be on the window."""
        assert self.picture is not None
        width, height = (max(1, round(side * self.scale)) for side in self.picture.get_size())
        place = pygame.Rect(0, 0, width, height)
        place.center = self.room.center
        if self.actual:
            for axis, (side, space) in enumerate(((width, self.room.width), (height, self.room.height))):
                self.offset[axis] = max(0, min(self.offset[axis], side - space))
                if side > space:
                    place[axis] = -self.offset[axis]
        return place

    def onto(self, rect: pygame.Rect) -> pygame.Rect:
        """A part of the picture, on the window, in whole pixels around it."""
        scale, place = self.scale, self.place
        left, top = int(rect.left * scale), int(rect.top * scale)
        right, bottom = -int(-rect.right * scale // 1), -int(-rect.bottom * scale // 1)
        return pygame.Rect(place.left + left, place.top + top, right - left, bottom - top)

    def pointer_area(self) -> list[pygame.Rect]:
        x, y, visible = self.pointer
        if not visible:
            return []
        image, hot_x, hot_y = self.shape
        return [pygame.Rect(x - hot_x - 2, y - hot_y - 2, image.get_width() + 4, image.get_height() + 4)]

    # --- drawing ---

    def draw(self) -> None:
        """Everything."""
        self.screen.fill(GROUND)
        if self.picture is not None:
            self.draw_picture(self.picture.get_rect())
            self.draw_pointer()
            if not self.live:
                veil = pygame.Surface(self.room.size, pygame.SRCALPHA)
                veil.fill((*GROUND, 170))
                self.screen.blit(veil, (0, 0))
        if self.help:
            self.draw_card("Keys", [f"{key}\t{what}" for key, what in HELP])
        elif not self.live:
            self.draw_card(*self.words())
        if self.bar:
            self.draw_bar()
        elif self.caption["lent"]:
            self.draw_lent()
        if self.notice:
            self.draw_notice()
        pygame.display.flip()
        self.seams = False

    def draw_parts(self, rects: list[pygame.Rect]) -> None:
        """What has changed of the picture."""
        assert self.picture is not None
        if self.notice or sum(r.width * r.height for r in rects) * 4 > self.picture.get_width() * self.picture.get_height():
            self.draw()
            return
        bounds = self.picture.get_rect()
        shown = []
        self.screen.set_clip(self.room)
        for rect in rects:
            margin = 2 if self.scale < 1 else 0
            around = rect.inflate(2 * margin, 2 * margin).clip(bounds)
            if around.width and around.height:
                self.draw_picture(around)
                shown.append(self.onto(around).clip(self.room))
        self.draw_pointer()
        self.screen.set_clip(None)
        self.seams = self.scale < 1
        pygame.display.update([*shown, *(self.onto(area).clip(self.room) for area in self.pointer_area())])

    def draw_picture(self, part: pygame.Rect) -> None:
        assert self.picture is not None
        self.screen.set_clip(self.room)
        scale = self.scale
        target = self.onto(part)
        piece = self.picture.subsurface(part)
        if scale == 1.0:
            self.screen.blit(piece, target)
        elif scale > 1.0:
            self.screen.blit(pygame.transform.scale(piece, target.size), target)
        elif target.width and target.height:
            self.screen.blit(pygame.transform.smoothscale(piece, target.size), target)
        self.screen.set_clip(None)

    def draw_pointer(self) -> None:
        x, y, visible = self.pointer
        if visible and not self.caption["lent"]:
            image, hot_x, hot_y = self.shape
            at = self.onto(pygame.Rect(x, y, 1, 1))
            self.screen.blit(image, (at.left - hot_x, at.top - hot_y))

    def words(self) -> tuple[str, list[str]]:
        """The card over a picture that is not live."""
        who = self.caption["presenter"] or "The presenter"
        match self.caption["state"]:
            case "paused by the presenter":
                return f"{who} has paused", ["The picture stays as it is until it goes on."]
            case "the presenter is away":
                return f"{who} is away", ["The picture is from before. It goes on by itself when the line is back."]
            case "reconnecting":
                return "Reconnecting …", ["The line is lost and is tried again by itself."]
            case "ended":
                return "The meeting has ended", ["Its keys are gone. You can close this window."]
            case "nobody presents":
                return "Nobody presents", ["The screen appears here as soon as somebody shares one."]
            case _:
                return f"Waiting for {who}'s screen", ["It comes by itself."]

    def draw_card(self, title: str, lines: list[str]) -> None:
        rows = [line.partition("\t") for line in lines]
        keys = max((font(15, bold=True).size(key)[0] for key, tab, _ in rows if tab), default=0)
        width = max(
            [font(24, bold=True).size(title)[0], *(font(15).size(rest or key)[0] + (keys + 24 if tab else 0) for key, tab, rest in rows)]
        )
        card = pygame.Rect(0, 0, width + 72, 86 + 26 * len(rows))
        card.center = self.room.center
        pygame.draw.rect(self.screen, BAR, card, border_radius=12)
        pygame.draw.rect(self.screen, FAINT, card, 1, border_radius=12)
        text(self.screen, title, 24, INK, (card.centerx, card.top + 38), "center", bold=True)
        for at, (key, tab, rest) in enumerate(rows):
            y = card.top + 80 + 26 * at
            if tab:
                text(self.screen, key, 15, BLUE, (card.left + 36, y), "midleft", bold=True)
                text(self.screen, rest, 15, INK, (card.left + 60 + keys, y), "midleft")
            else:
                text(self.screen, key, 15, FAINT, (card.centerx, y), "center")

    def draw_bar(self) -> None:
        width, height = self.screen.get_size()
        bar = pygame.Rect(0, height - BAR_HEIGHT, width, BAR_HEIGHT)
        pygame.draw.rect(self.screen, BAR, bar)
        word, colour = STATES.get(self.caption["state"], ("WAITING", GREY))
        x = chip(self.screen, word, colour, (10, bar.centery)) + 12
        if self.caption["lent"]:
            x = chip(self.screen, "YOUR MOUSE AND KEYBOARD", RED, (x, bar.centery)) + 12
        right = width - 12
        if self.picture is not None:
            right = text(self.screen, f"{round(100 * self.scale)} %", 14, FAINT, (right, bar.centery), "midright").left - 18
        badge = self.caption["badge"]
        colour = GREEN if badge.startswith("operator-proof") else AMBER
        spot = text(self.screen, badge, 14, colour, (right, bar.centery), "midright", most=width - x - 300)
        if badge:
            pygame.draw.circle(self.screen, colour, (spot.left - 10, bar.centery), 4)
        who = self.caption["presenter"]
        line = f"{who} presents" if who else ""
        text(self.screen, line, 15, INK, (x, bar.centery), "midleft", bold=True, most=spot.left - x - 34)

    def draw_lent(self) -> None:
        chip(self.screen, "YOUR MOUSE AND KEYBOARD", RED, (10, 22))

    def draw_notice(self) -> None:
        width = font(15).size(self.notice)[0] + 36
        spot = pygame.Rect(0, 0, min(width, self.room.width - 40), 34)
        spot.midbottom = (self.room.centerx, self.room.bottom - 16)
        pygame.draw.rect(self.screen, INK, spot, border_radius=17)
        text(self.screen, self.notice, 15, GROUND, spot.center, "center", most=spot.width - 24)

    # --- the person ---

    def out(self, **line: object) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def touch(self, *event: object) -> None:
        self.out(touch=event)

    def pixel(self, at: tuple[int, int]) -> tuple[int, int] | None:
        """The picture's pixel under a place of the window; None: beside it."""
        if self.picture is None or not self.place.clip(self.room).collidepoint(at):
            return None
        return int((at[0] - self.place.left) / self.scale), int((at[1] - self.place.top) / self.scale)

    def save(self) -> None:
        if self.picture is None:
            self.tell("There is no picture yet.")
            return
        path = self.folder / f"parley-{time.strftime('%Y%m%d-%H%M%S')}.png"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))  # it shows a meeting: the user's alone
            pygame.image.save(self.picture.convert(24), str(path))
        except (OSError, pygame.error) as error:
            self.tell(f"It cannot be saved: {error}")
        else:
            self.tell(f"Saved as {path}")
            self.out(told=f"The picture is saved as {path}")

    def fullscreen(self) -> None:
        self.full = not self.full
        self.bar = not self.full
        if self.full:
            self.window.set_fullscreen(desktop=True)
        else:
            self.window.set_windowed()
        self.screen = pygame.display.get_surface() or self.screen

    def key(self, event: pygame.event.Event) -> bool:
        """A key was pressed; False: the window closes."""
        key, lent = event.key, bool(self.caption["lent"]) and self.live
        if key == pygame.K_F11 or (key == pygame.K_f and not lent):
            self.fullscreen()
        elif key == pygame.K_F12 or (key == pygame.K_s and not lent):
            self.save()
        elif lent:
            self.send_key(key, event.mod)
            return True
        elif key == pygame.K_w and event.mod & pygame.KMOD_CTRL:
            return False
        elif key in (pygame.K_h, pygame.K_F1):
            self.help = not self.help
        elif key == pygame.K_ESCAPE:
            if self.help:
                self.help = False
            elif self.full:
                self.fullscreen()
        elif key in (pygame.K_1, pygame.K_KP1):
            self.actual = True
        elif key in (pygame.K_0, pygame.K_KP0):
            self.actual = False
        elif key == pygame.K_b:
            self.bar = not self.bar
        elif key in (pygame.K_LEFT, pygame.K_RIGHT, pygame.K_UP, pygame.K_DOWN):
            axis = 0 if key in (pygame.K_LEFT, pygame.K_RIGHT) else 1
            self.offset[axis] += 80 if key in (pygame.K_RIGHT, pygame.K_DOWN) else -80
        else:
            return True
        self.draw()
        return True

    def send_key(self, key: int, mod: int) -> None:
        """A key that gives no text of its own: others come as TEXTINPUT, whatever layout, dead key or input method made them."""
        keysym = KEYSYMS.get(key) or (key if mod & _CHORD and 0x20 <= key < 0x7F else 0)
        if keysym:
            self.held[key] = keysym
            self.touch(4, keysym, True)

    def handle(self, event: pygame.event.Event) -> bool:
        """One event of the window system; False: the window closes."""
        lent = bool(self.caption["lent"]) and self.live
        if event.type == pygame.QUIT:
            return False
        if event.type == pygame.KEYDOWN:
            return self.key(event)
        if event.type == pygame.KEYUP and event.key in self.held:
            self.touch(4, self.held.pop(event.key), False)
        elif event.type == pygame.TEXTINPUT and lent and not pygame.key.get_mods() & _CHORD:
            for at in range(0, len(event.text), 200):
                self.touch(5, event.text[at : at + 200])
        elif event.type == pygame.MOUSEMOTION:
            spot = self.pixel(event.pos)
            if lent and spot is not None:
                self.touch(1, *spot)
            elif not lent and self.actual and event.buttons[0]:
                self.offset = [self.offset[axis] - event.rel[axis] for axis in (0, 1)]
                self.draw()
        elif event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP) and lent and event.button in (1, 2, 3, 8, 9):
            spot = self.pixel(event.pos)
            down = event.type == pygame.MOUSEBUTTONDOWN
            if spot is not None:
                self.touch(1, *spot)
            if spot is not None or not down:
                self.touch(2, event.button, down)
        elif event.type == pygame.MOUSEWHEEL and lent:
            self.touch(3, max(-32, min(32, event.x)), max(-32, min(32, -event.y)))
        elif event.type == pygame.WINDOWFOCUSLOST:
            for key in list(self.held):
                self.touch(4, self.held.pop(key), False)
        elif event.type in (pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED, pygame.WINDOWRESTORED):
            self.screen = pygame.display.get_surface() or self.screen
            self.draw()
        return True

    def run(self) -> None:
        """Until it is closed, or the parent goes."""
        self.draw()
        while True:
            wait = SETTLE_MS if self.seams else 500 if self.notice else 0
            event = pygame.event.wait(wait) if wait else pygame.event.wait()
            if self.notice and time.monotonic() > self.notice_until:
                self.notice = ""
                self.draw()
            if event.type == pygame.NOEVENT:
                if self.seams:
                    self.draw()
                continue
            if event.type == HEARD:
                facts = self.inbox.take()
                if facts is None:
                    return
                self.take(facts)
            elif not self.handle(event):
                return


def arrow() -> pygame.Surface:
    """A pointer like any other."""
    image = pygame.Surface((16, 22), pygame.SRCALPHA)
    outline = [(1, 1), (1, 17), (5, 14), (8, 20), (11, 19), (8, 13), (13, 13)]
    pygame.draw.polygon(image, (0, 0, 0), outline)
    pygame.draw.polygon(image, (255, 255, 255), outline, 1)
    return image


if __name__ == "__main__":
    window = Window(int(sys.argv[1]), Inbox())
    window.inbox.open(sys.stdin)
    window.run()
    os._exit(0)  # the reader thread sits in a read
