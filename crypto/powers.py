"""Modular powers in constant time: what a join costs is a handful of them.

OpenSSL's Montgomery power takes half the time of GMP's. Python itself brings that library along, for `hashlib`; where it cannot be reached (a
Python that is linked otherwise), GMP does the work. Both take time and touch memory by the exponent's size in words alone, and both free
the interpreter meanwhile.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import gmpy2

_NUMBER: Final = ctypes.c_void_p
_Power = Callable[[int, int, int], int]


def power(base: int, exponent: int, modulus: int) -> int:
    """base^exponent mod an odd modulus; time and memory access do not depend on a (positive) exponent's bits."""
    return _best()(base % modulus, exponent, modulus)


def by_gmp(base: int, exponent: int, modulus: int) -> int:
    with gmpy2.context(gmpy2.get_context(), allow_release_gil=True):
        return int(gmpy2.powmod_sec(base, exponent, modulus))


@cache
def _best() -> _Power:
    try:
        return OpenSsl().power
    except (OSError, AttributeError):
        return by_gmp


class OpenSsl:
    """Raises OSError or AttributeError if Python's OpenSSL cannot be reached. Numbers whose value is secret are cleared."""

    def __init__(self) -> None:
        spec = find_spec("_hashlib")
        if spec is None or spec.origin is None:
            raise OSError("no OpenSSL")
        quick = ctypes.PyDLL(spec.origin)  # keeps the interpreter: to let go of it costs more than these calls
        self._new_context = _function(quick.BN_CTX_new, _NUMBER)
        self._free_context = _function(quick.BN_CTX_free, None, _NUMBER)
        self._read = _function(quick.BN_bin2bn, _NUMBER, ctypes.c_char_p, ctypes.c_int, _NUMBER)
        self._write = _function(quick.BN_bn2binpad, ctypes.c_int, _NUMBER, ctypes.c_char_p, ctypes.c_int)
        self._free = _function(quick.BN_clear_free, None, _NUMBER)
        self._new_montgomery = _function(quick.BN_MONT_CTX_new, _NUMBER)
        self._set_montgomery = _function(quick.BN_MONT_CTX_set, ctypes.c_int, _NUMBER, _NUMBER, _NUMBER)
        slow = ctypes.CDLL(spec.origin)  # frees the interpreter
        self._power = _function(slow.BN_mod_exp_mont_consttime, ctypes.c_int, *(6 * [_NUMBER]))
        self._moduli: dict[int, tuple[int, int]] = {}  # each one's number and its Montgomery form, for good: groups are few

    def power(self, base: int, exponent: int, modulus: int) -> int:
        """For 0 ≤ base < modulus."""
        context = self._new_context()
        number, montgomery = self._modulus(modulus, context)
        size = _size(modulus)
        held = [self._number(base), self._number(exponent), self._number(0)]
        try:
            if not self._power(held[2], held[0], held[1], number, context, montgomery):
                raise MemoryError
            written = ctypes.create_string_buffer(size)
            self._write(held[2], written, size)
            return int.from_bytes(written.raw, "big")
        finally:
            for one in held:
                self._free(one)
            self._free_context(context)

    def _modulus(self, modulus: int, context: int) -> tuple[int, int]:
        found = self._moduli.get(modulus)
        if found is None:
            number, montgomery = self._number(modulus), self._new_montgomery()
            if not self._set_montgomery(montgomery, number, context):
                raise MemoryError
            found = self._moduli[modulus] = number, montgomery
        return found

    def _number(self, value: int) -> int:
        size = _size(value)
        made: int | None = self._read(value.to_bytes(size, "big"), size, None)
        if made is None:
            raise MemoryError
        return made


def _size(value: int) -> int:
    return max(1, (value.bit_length() + 7) // 8)


def _function(function: "ctypes._NamedFuncPointer", result: type[Any] | None, *arguments: type) -> Callable[..., int]:
    function.restype, function.argtypes = result, arguments
    return function
