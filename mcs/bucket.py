"""How much somebody may do: a rate, and what may come at once. Synchronous, with `now`; owned by whoever asks it."""


class Bucket:
    """A token bucket: `rate` a second, `burst` at once."""

    __slots__ = ("_at", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst = rate, burst
        self._left, self._at = burst, now

    def take(self, amount: float, now: float) -> bool:
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def full(self, now: float) -> bool:
        """Nothing of what it took is missing any more: a new one would be the same."""
        return self._left + (now - self._at) * self.rate >= self.burst

    def empty(self) -> None:
        """Who asked for too much has nothing left."""
        self._left = 0.0
