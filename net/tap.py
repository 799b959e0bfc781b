"""A diagnostic: every byte that a server receives, after TLS, one file a link.

`parley demo` taps its servers and then looks for what they must not know. A tap sees what the server sees and nothing else: sealed packets
stay sealed in it. It holds role tokens and addresses, so its files are for their owner alone (0600). Writing is synchronous and unbuffered,
so that nothing is lost when the server is killed; it is not meant for production.
"""

import os
from itertools import count
from pathlib import Path


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
    """Appends what it is called with; opens its file with the first byte."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
