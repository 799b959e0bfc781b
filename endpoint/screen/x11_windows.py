"""What stands on an X11 display: monitors, windows by name, and where windows stand that must not be seen.

A program's windows are told by their names (WM_CLASS, or a part of the title). Its menus and dialogs are windows of their own, often without
a name; they are found by the connection that made them, which is part of every window's number, and by whose dialog they say they are. So what
is excluded is the whole program. Window managers put frames around windows: the frame is what stands there, so it is excluded with what it
holds. Asking takes a few round trips, whatever the number of windows; within a server grab nothing moves meanwhile.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from endpoint.screen.picture import Rect, ScreenError
from endpoint.screen.x11_display import Display

_VIEWABLE: Final = 2
_INPUT_ONLY: Final = 2
_DEPTH: Final = 2
"""Levels below a child of the root where a client's window may be: a frame, or a frame in a frame."""
_NUMBER: Final = re.compile("0x[0-9a-fA-F]+")
_ANY_TYPE: Final = 0
_TEXT: Final = 256
"""Longs of a property that are read."""


class Monitor(NamedTuple):
    name: str
    area: Rect


@dataclass(frozen=True, slots=True)
class Window:
    """A client's window that a person would know."""

    id: int
    title: str
    kind: str  # WM_CLASS: instance and class
    area: Rect

    def is_called(self, name: str) -> bool:
        """By its number (0x…), by a name of its program, or by a part of its title."""
        if _NUMBER.fullmatch(name):
            return self.id == int(name, 16)
        wanted = name.casefold()
        return wanted in self.kind.casefold().split("\0") or wanted in self.title.casefold()


@dataclass(frozen=True, slots=True)
class Programs:
    """Some programs' windows on the screen: where they stand, with what is in them, and what tells their connections."""

    areas: list[Rect] = field(default_factory=list)
    windows: frozenset[int] = frozenset()
    owners: frozenset[int] = frozenset()
    mask: int = 0

    def own(self, window: int) -> bool:
        """Whether a window is theirs, or a frame around one of theirs."""
        return window in self.windows or window & self.mask in self.owners


class Windows:
    """Questions about one display. May raise what xcffib raises: call within `Display.errors`."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._core = display.connection.core
        self._owner = ~display.connection.get_setup().resource_id_mask
        self._names = {name: display.atom(name) for name in ("WM_CLASS", "_NET_WM_NAME", "WM_NAME", "WM_TRANSIENT_FOR", "WM_STATE")}

    def monitors(self) -> list[Monitor]:
        """In the order in which the server names them."""
        randr = self._display.extension("randr")
        randr.QueryVersion(1, 5).reply()
        found = randr.GetMonitors(self._display.root, True).reply().monitors
        names = [self._core.GetAtomName(monitor.name) for monitor in found]
        return [
            Monitor(_text(name.reply().name), Rect(monitor.x, monitor.y, monitor.width, monitor.height))
            for name, monitor in zip(names, found, strict=True)
        ]

    def all(self) -> list[Window]:
        """Windows that a person would know, the uppermost first."""
        found = []
        families = self._families(self._viewable())
        facts = self._facts([w for family in families.values() for w in family])
        for area, family in zip(self._areas, families.values(), strict=True):
            for window in family:
                title, kind, _, managed = facts[window]
                if managed and (title or kind):
                    found.append(Window(window, title or kind.split("\0")[0], kind, area))
        return found[::-1]

    def find(self, name: str) -> Window:
        """The uppermost window that is called so. Raises ScreenError `no-such-window`."""
        every = self.all()
        for window in every:
            if window.is_called(name):
                return window
        there = ", ".join(sorted({f"“{window.title}”" for window in every})) or "none"
        raise ScreenError("no-such-window", f"No window here is called “{name}”. There are: {there}.")

    def programs(self, names: Sequence[str]) -> Programs:
        """What the programs of these names have on the screen, menus and dialogs too."""
        families = self._families(self._viewable())
        facts = self._facts([w for family in families.values() for w in family])
        named = {
            window for window, (title, kind, _, _) in facts.items() if any(Window(window, title, kind, _NOWHERE).is_called(n) for n in names)
        }
        owners = frozenset(window & self._owner for window in named)
        found = [
            (area, family)
            for area, family in zip(self._areas, families.values(), strict=True)
            if any(w & self._owner in owners or w in named or facts[w][2] in named for w in family)
        ]
        return Programs([area for area, _ in found], frozenset(w for _, family in found for w in family), owners, self._owner)

    def areas(self, windows: Iterable[int]) -> list[tuple[int, Rect]]:
        """Where these stand, their borders included; those that are gone left out."""
        asked = [(window, self._core.GetGeometry(window)) for window in windows]
        return [(window, area_of(place)) for window, cookie in asked if (place := self._answer(cookie)) is not None]

    def _viewable(self) -> list[int]:
        """The root's children that can be seen, the lowest first; `_areas` is where each stands, its border included."""
        children = list(self._core.QueryTree(self._display.root).reply().children)
        asked = [(w, self._core.GetWindowAttributes(w), self._core.GetGeometry(w)) for w in children]
        tops, self._areas = [], []
        for window, attributes, geometry in asked:
            seen, place = self._answer(attributes), self._answer(geometry)
            if seen is None or place is None or seen.map_state != _VIEWABLE or seen._class == _INPUT_ONLY:
                continue
            tops.append(window)
            self._areas.append(area_of(place))
        return tops

    def _families(self, tops: list[int]) -> dict[int, list[int]]:
        """Each of these windows with what is in it, `_DEPTH` levels deep."""
        families = {top: [top] for top in tops}
        level = [(top, top) for top in tops]
        for _ in range(_DEPTH):
            asked = [(top, self._core.QueryTree(window)) for top, window in level]
            level = []
            for top, cookie in asked:
                answer = self._answer(cookie)
                level += [(top, child) for child in (answer.children if answer else ())]
            for top, child in level:
                families[top].append(child)
        return families

    def _facts(self, windows: Iterable[int]) -> dict[int, tuple[str, str, int, bool]]:
        """Title, WM_CLASS, whose dialog (0: nobody's), whether a window manager looks after it."""
        order = ("_NET_WM_NAME", "WM_NAME", "WM_CLASS", "WM_TRANSIENT_FOR", "WM_STATE")
        asked = {w: [self._core.GetProperty(False, w, self._names[name], _ANY_TYPE, 0, _TEXT) for name in order] for w in windows}
        facts = {}
        for window, cookies in asked.items():
            raw = [bytes(answer.value.buf()) if (answer := self._answer(cookie)) else b"" for cookie in cookies]
            owner = int.from_bytes(raw[3][:4], "little") if len(raw[3]) >= 4 else 0
            facts[window] = (_text(raw[0] or raw[1]), _text(raw[2]).strip("\0"), owner, bool(raw[4]))
        return facts

    def _answer(self, cookie: Any) -> Any:
        """None if the window has gone in between."""
        try:
            return cookie.reply()
        except self._display.x.Error:
            return None


_NOWHERE: Final = Rect(0, 0, 0, 0)


def area_of(place: Any) -> Rect:
    """Of a geometry, or an event that tells one: the window with its border."""
    border = 2 * place.border_width
    return Rect(place.x, place.y, place.width + border, place.height + border)


def _text(raw: Any) -> str:
    data = raw if isinstance(raw, bytes) else bytes(raw.buf()) if hasattr(raw, "buf") else bytes(raw)
    return data.decode("utf-8", "replace")
