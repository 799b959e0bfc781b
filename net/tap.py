"""A diagnostic: every byte that a server receives, after TLS, one file a link.

`parley demo` taps its servers and then looks for what they must not know. A tap sees what the server sees and nothing else: sealed packets
stay sealed in it. It holds role tokens and addresses, so its files are for their owner alone (0600). Writing is synchronous and unbuffered,
so that nothing is lost when the server is killed; it is not meant for production.
"""

import os
from itertools import count
from pathlib import Path

import structlog

log = structlog.get_logger()


class Tap:
    """A directory of recordings."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._numbers = count(1)

    def record(self, label: str) -> "Recording":
        """A new recording; `label` says whose (an address, for example) and becomes part of the file's name."""
        safe = "".join(c if c.isalnum() or c in ".-" else "_" for c in label)[:80]
        return Recording(self.directory / f"{os.getpid()}-{next(self._numbers):06d}-{safe}.bin")


class Recording:
    """Appends what it is called with; opens its file with the first byte. It ends, with a word in the log, when it cannot be written."""

    __slots__ = ("_ended", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = False

    def __call__(self, data: bytes) -> None:
        if not data or self._ended:
            return
        try:
            self._append(data)
        except OSError as error:  # no link ends for the sake of a diagnostic
            self._ended = True
            log.warning("tap-ended", path=str(self.path), reason=error.strerror)

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
