"""What its parent says to a window, for the window's process: lines of JSON on standard input, merged until the main thread takes them.

A thread reads, since the window sleeps in its window system's own queue. However much is said while the window draws, one event stands
there for it: the newest of each kind, and rectangles together. So a window that is slower than its parent is one picture behind, and hears
its person at once.
"""

import json
import threading
from collections.abc import Iterable
from typing import Any, Final

import pygame

from endpoint.screen.picture import Rect, gathered

HEARD: Final = pygame.event.custom_type()
"""There is something to `take`."""


class Inbox:
    """Filled by its thread, emptied by the main one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {}
        self._ended = False

    def open(self, lines: Iterable[str]) -> None:
        """Read these in a thread that ends with the process: it sits in a read."""
        threading.Thread(target=self._read, args=[lines], daemon=True).start()

    def put(self, facts: dict[str, Any]) -> None:
        with self._lock:
            known = self._facts
            if "rects" in known and "rects" in facts:
                facts["rects"] = gathered([Rect(*rect) for rect in known["rects"]], [Rect(*rect) for rect in facts["rects"]])
            self._facts = known | facts
        if not known:
            pygame.event.post(pygame.event.Event(HEARD))

    def take(self) -> dict[str, Any] | None:
        """What was said since the last time; None: the parent has gone."""
        with self._lock:
            facts, self._facts = self._facts, {}
            return None if self._ended else facts

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.put(json.loads(line))
        self._ended = True
        pygame.event.post(pygame.event.Event(HEARD))
