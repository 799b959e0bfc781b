"""The key that TOTP keys are sealed with in the store, so that a copy of the database alone makes no code. No store, no HTTP.

    sealed = nonce (12 random bytes) ‖ ChaCha20-Poly1305(key, nonce, the TOTP key, AAD = label ‖ account u64)

The key is 32 random bytes in `totp.key`, mode 0600, beside the manager's certificate; it is made when the manager first starts. Backups
(`manager.backup`), which are encrypted themselves, carry it, and what they restore is sealed anew with the key of the machine that restores.
Without it authenticators show codes in vain, and recovery codes, passkeys or an administrator help.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from manager.errors import SettingsMalformed
from manager.hidden import Hidden

FILE: Final = "totp.key"
SIZE: Final = 32
NONCE: Final = 12
LABEL: Final = b"parley totp 1"


class Seal:
    """Seals and opens TOTP keys. Without a key, one that lives as long as this object."""

    __slots__ = ("_cipher", "key")

    def __init__(self, key: Hidden | None = None) -> None:
        self.key = Hidden(secrets.token_bytes(SIZE)) if key is None else key
        self._cipher = ChaCha20Poly1305(self.key.reveal())

    @classmethod
    def in_directory(cls, directory: Path) -> "Seal":
        """The directory's, made if there is none. Raises `SettingsMalformed` for a file that cannot be read or written, or is no key."""
        path = directory / FILE
        try:
            if not path.exists():
                part = directory / f".{FILE}.part"
                with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                    file.write(secrets.token_bytes(SIZE))
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(path)
            key = path.read_bytes()
        except OSError as error:
            raise SettingsMalformed(f"{path}, the key that TOTP keys are sealed with, cannot be used ({error.strerror})") from None
        if len(key) != SIZE:
            raise SettingsMalformed(f"{path} is not the {SIZE} bytes that TOTP keys are sealed with; put the right file back")
        return cls(Hidden(key))

    def seal(self, key: Hidden, account: int) -> Hidden:
        """For the account's row, and for no other."""
        nonce = secrets.token_bytes(NONCE)
        return Hidden(nonce + self._cipher.encrypt(nonce, key.reveal(), _about(account)))

    def open(self, sealed: Hidden, account: int) -> Hidden | None:
        """None: sealed with another key, or for another account."""
        content = sealed.reveal()
        try:
            return Hidden(self._cipher.decrypt(content[:NONCE], content[NONCE:], _about(account)))
        except (InvalidTag, ValueError):
            return None


def _about(account: int) -> bytes:
    return LABEL + account.to_bytes(8, "big")
