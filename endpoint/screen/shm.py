"""One System V shared memory segment between an X server and us.

The segment is marked for removal as soon as it exists here: Linux lets others attach by its id as long as somebody
holds it, and it is gone with the last holder, however that one ends. `kill -9` leaves nothing behind.
"""

import ctypes
from pathlib import Path

import numpy as np

from endpoint.screen.picture import OPAQUE, Words

_IPC_PRIVATE, _IPC_CREAT, _IPC_RMID = 0, 0o1000, 0


class Segment:
    """`size` bytes that a server of the same user and the same IPC namespace can write to. Raises OSError."""

    def __init__(self, size: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.shmat.restype = ctypes.c_void_p
        self._libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
        self._libc.shmdt.argtypes = [ctypes.c_void_p]
        self._libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
        self._address: int | None = None
        self.size = size
        self.id: int = self._libc.shmget(_IPC_PRIVATE, size, _IPC_CREAT | 0o600)
        if self.id < 0:
            raise OSError(ctypes.get_errno(), "no shared memory")
        address = self._libc.shmat(self.id, None, 0)
        failure = ctypes.get_errno() if address == ctypes.c_void_p(-1).value else 0
        self._libc.shmctl(self.id, _IPC_RMID, None)
        if failure:
            raise OSError(failure, "shared memory cannot be attached")
        self._address = address

    def holders(self) -> int:
        """How many processes hold it: two once the server does. An id alone proves nothing across namespaces."""
        with Path("/proc/sysvipc/shm").open() as table:
            columns = table.readline().split()
            for line in table:
                row = dict(zip(columns, line.split(), strict=False))
                if int(row["shmid"]) == self.id:
                    return int(row["nattch"])
        return 0

    def copy_to(self, target: Words, offset: int) -> None:
        """Write the pixels that begin at byte `offset` into `target`, fourth byte 255. ValueError if they do not fit."""
        if self._address is None or offset < 0 or offset + 4 * target.size > self.size:
            raise ValueError("outside of the segment")
        memory = (ctypes.c_uint8 * (4 * target.size)).from_address(self._address + offset)
        np.bitwise_or(np.frombuffer(memoryview(memory), np.uint32).reshape(target.shape), OPAQUE, out=target)

    def close(self) -> None:
        if self._address is not None:
            self._libc.shmdt(self._address)
            self._address = None
