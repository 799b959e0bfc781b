"""Group keys that have come, and the entry that chooses among them. Sans-IO.

An `epoch` entry names the digest of the key that holds from there on; the key comes on channel 0, before the entry or after it, and after a
second dismissal more than one comes for the same epoch. Between the entry and its key nothing is sealed.
"""

from typing import Final

from crypto.keyring import Keyring
from crypto.schedule import group_key_digest
from endpoint.messages import GroupKey

MAX_KEYS: Final = 4
"""Keys kept for one epoch, and epochs that they are kept for: the newest ones."""


class WrappedKeys:
    """Owned by a member."""

    __slots__ = ("_awaited", "_keyring", "_keys")

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._keys: dict[int, list[bytes]] = {}
        self._awaited: tuple[int, bytes] | None = None  # epoch and digest of an entry whose key is not here

    @property
    def awaited(self) -> bool:
        """Whether an entry has chosen a key that has not come."""
        return self._awaited is not None

    def came(self, message: GroupKey, now: float) -> None:
        self.keep(message.epoch, message.key)
        self._choose(now)

    def keep(self, epoch: int, key: bytes) -> None:
        keys = self._keys.setdefault(epoch, [])
        keys.append(key)
        del keys[:-MAX_KEYS]
        while len(self._keys) > MAX_KEYS:
            del self._keys[min(self._keys)]

    def commit(self, epoch: int, digest: bytes, now: float) -> None:
        """The entry: the key of this digest, when it is here."""
        self._awaited = (epoch, digest)
        self._choose(now)

    def _choose(self, now: float) -> None:
        if self._awaited is None:
            return
        epoch, digest = self._awaited
        for key in self._keys.get(epoch, ()):
            if group_key_digest(key) == digest:
                self._keyring.install(epoch, key, now)
                self._keyring.advance(epoch, now)
                self.passed(epoch)
                return

    def newest(self, epoch: int) -> bytes | None:
        """The key that came last for this epoch."""
        keys = self._keys.get(epoch)
        return keys[-1] if keys else None

    def passed(self, epoch: int) -> None:
        """This epoch holds: nothing is awaited, and keys up to it are done with."""
        self._awaited = None
        self._keys = {number: keys for number, keys in self._keys.items() if number > epoch}

    def clear(self) -> None:
        self._keys.clear()
        self._awaited = None
