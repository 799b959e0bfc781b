"""How often a stranger may ask: token buckets per address and over all. No clock, no I/O: `now` is an argument.

Memory is bounded without forgetting anybody who matters. A full bucket is the same as none, so only buckets with a token missing are kept.
Let T be the time in which an empty bucket fills up. An entry that was touched less than T ago misses a token taken less than 2 T ago, and
the bucket over all bounds how many those are: `capacity`. So the entry that is dropped for a new one was touched longer ago and is full.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then `per_second`. Both above 0; a burst is at least 1."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if not (self.per_second > 0 and self.burst >= 1 and math.isfinite(self.per_second) and math.isfinite(self.burst)):
            raise ValueError("a rate needs per_second > 0 and burst >= 1")


class _Bucket:
    """Tokens as of a moment."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at

    def level(self, rate: Rate, now: float) -> float:
        return min(rate.burst, self.tokens + max(0.0, now - self.at) * rate.per_second)


class Throttle:
    """Buckets of one kind of request."""

    __slots__ = ("_by_address", "_over_all", "capacity", "each", "over_all")

    def __init__(self, each: Rate, over_all: Rate) -> None:
        self.each: Final = each
        self.over_all: Final = over_all
        self.capacity: Final = math.ceil(over_all.burst + over_all.per_second * 2 * each.burst / each.per_second) + 1
        self._by_address: OrderedDict[str, _Bucket] = OrderedDict()  # least recently touched first
        self._over_all = _Bucket(over_all.burst, -math.inf)

    def __len__(self) -> int:
        return len(self._by_address)

    def take(self, address: str, now: float) -> float:
        """Take a token: 0.0 if it is granted, else the seconds after which one may be there. A refusal costs nothing."""
        key = bucket_of(address)
        own = self._by_address.get(key)
        mine = self.each.burst if own is None else own.level(self.each, now)
        all_ = self._over_all.level(self.over_all, now)
        wait = max((1.0 - mine) / self.each.per_second, (1.0 - all_) / self.over_all.per_second)
        if wait > 0.0:
            return wait
        self._over_all = _Bucket(all_ - 1.0, now)
        self._by_address[key] = _Bucket(mine - 1.0, now)
        self._by_address.move_to_end(key)
        if len(self._by_address) > self.capacity:
            self._by_address.popitem(last=False)
        return 0.0

    def give_back(self, address: str, now: float) -> None:
        """The token was not needed after all: whoever asked was entitled."""
        key = bucket_of(address)
        own = self._by_address.get(key)
        if own is not None:
            own.tokens, own.at = own.level(self.each, now) + 1.0, now
            if own.tokens >= self.each.burst:
                del self._by_address[key]
        self._over_all = _Bucket(min(self.over_all.burst, self._over_all.level(self.over_all, now) + 1.0), now)


@lru_cache(4096)
def bucket_of(address: str) -> str:
    """Who counts as one: an IPv4 address, or the /64 of an IPv6 address, since one person has all of it.

    >>> bucket_of("2001:db8:0:1::5") == bucket_of("2001:db8:0:1:ffff::")
    True
    >>> bucket_of("::ffff:192.0.2.1")
    '192.0.2.1'
    """
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(IPv6Address(int(ip) >> 64 << 64)) + "/64"
    return str(ip)
