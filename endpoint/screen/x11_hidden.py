"""Programs that are never shown: where they stand on an X11 display, have been since the last look, and may still be seen.

What the display shows is not what stands there. A compositor draws windows itself, a little later, at every place where they have been, and
fades those that go. Without one, a program whose window is uncovered draws itself anew when it comes to it, and until then what covered it is
still there. So a place stays hidden for `LINGER` after a window of such a program has left it, and every place counts, however briefly one was
there: the server tells each (SubstructureNotify on the root window), not only where they stand when somebody looks.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from endpoint.screen.picture import Rect, bounding
from endpoint.screen.x11_windows import Programs, Windows, area_of

LINGER: Final = 1.0
"""Seconds for which a window may still be seen where it stood."""
MANY: Final = 64
"""More places than this are hidden as one."""
MANY_WINDOWS: Final = 1000
"""Windows that come up between two looks, and are looked after."""
_CREATE_NOTIFY, _MAP_NOTIFY, _CONFIGURE_NOTIFY = 16, 19, 22


class Hidden:
    """Of one display. `heard` gets its events; `look` and then, when its events have been heard, `places`, both within one server grab.
    May raise what xcffib raises."""

    def __init__(self, windows: Windows, names: Sequence[str]) -> None:
        self.clears = math.inf  # when the first place becomes clear where none of them stands any more
        self._windows = windows
        self._names = names
        self._programs = Programs()  # as they were at the last look
        self._before = Programs()  # and at the one before
        self._been: deque[tuple[float, int, Rect]] = deque()  # where windows have been since: when, which, where
        self._mapped: set[int] = set()  # those that have come up since
        self._until: dict[Rect, float] = {}  # what is hidden

    def heard(self, event: Any, now: float) -> None:
        """Something happened to a window on the root."""
        kind = event.response_type & 0x7F
        if kind in (_CREATE_NOTIFY, _CONFIGURE_NOTIFY):
            self._been.append((now, event.window, area_of(event)))
            while now - self._been[0][0] > LINGER:  # nobody looks, during a pause, say
                self._been.popleft()
        elif kind == _MAP_NOTIFY and len(self._mapped) < MANY_WINDOWS:
            self._mapped.add(event.window)

    def look(self) -> None:
        self._before, self._programs = self._programs, self._windows.programs(self._names)

    def places(self, now: float) -> list[Rect]:
        """What must not be seen, in pixels of the display."""
        been = [*((window, area) for _, window, area in self._been), *self._windows.areas(self._mapped)]
        self._been.clear()
        self._mapped.clear()
        passed = [area for window, area in been if self._programs.own(window) or self._before.own(window)]
        stand = self._programs.areas
        self._until = {area: until for area, until in self._until.items() if until > now}
        self._until |= dict.fromkeys([*self._before.areas, *passed, *stand], now + LINGER)
        if len(self._until) > MANY:
            self._until = {bounding(list(self._until)): now + LINGER}
        self.clears = min((until for area, until in self._until.items() if area not in stand), default=math.inf)
        return sorted({*stand, *self._until})
