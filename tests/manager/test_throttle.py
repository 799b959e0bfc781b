"""The throttle: `now` is an argument, the oracle forgets nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.throttle import Rate, Throttle, bucket_of


class Oracle:
    """The same rules with a bucket for everybody, for ever."""

    def __init__(self, each: Rate, over_all: Rate) -> None:
        self.rates = {"": over_all}
        self.each = each
        self.levels: dict[str, tuple[float, float]] = {}

    def level(self, key: str, now: float) -> float:
        rate = self.rates.get(key, self.each)
        tokens, at = self.levels.get(key, (rate.burst, now))
        return min(rate.burst, tokens + (now - at) * rate.per_second)

    def take(self, key: str, now: float) -> bool:
        if min(self.level(key, now), self.level("", now)) < 1:
            return False
        for k in (key, ""):
            self.levels[k] = self.level(k, now) - 1, now
        return True

    def give_back(self, key: str, now: float) -> None:
        for k in (key, ""):
            rate = self.rates.get(k, self.each)
            self.levels[k] = min(rate.burst, self.level(k, now) + 1), now


EACH, ALL = Rate(0.25, 2), Rate(1.0, 4)  # powers of two: the oracle's sums are the same to the last bit
acts = st.lists(st.tuples(st.sampled_from(["take", "take-and-give-back"]), st.integers(0, 60), st.integers(0, 12)), max_size=200)


@given(acts)
def test_it_answers_as_if_it_forgot_nobody(steps: list[tuple[str, int, int]]) -> None:
    throttle, oracle, now = Throttle(EACH, ALL), Oracle(EACH, ALL), 1000.0
    for act, who, later in steps:
        now += later / 4
        address = f"192.0.2.{who}"
        wait = throttle.take(address, now)
        assert (wait == 0) == oracle.take(address, now)
        if wait == 0 and act == "take-and-give-back":
            throttle.give_back(address, now)
            oracle.give_back(address, now)
        assert len(throttle) <= throttle.capacity


def test_memory_is_bounded_whatever_the_number_of_addresses() -> None:
    throttle = Throttle(EACH, ALL)
    for n in range(5_000):
        throttle.take(f"2001:db8:{n:x}::1", 1000.0 + n)
    assert len(throttle) <= throttle.capacity == 4 + 16 + 1


def test_the_wait_is_as_long_as_it_says() -> None:
    throttle = Throttle(Rate(0.25, 2), Rate(100, 100))
    assert [throttle.take("192.0.2.1", 0.0) for _ in range(3)] == [0.0, 0.0, 4.0]
    assert throttle.take("192.0.2.2", 0.0) == 0.0
    assert throttle.take("192.0.2.1", 3.0) == 1.0
    assert throttle.take("192.0.2.1", 4.0) == 0.0


def test_all_together_are_bounded_too() -> None:
    throttle = Throttle(Rate(1, 10), Rate(1, 3))
    assert [throttle.take(f"192.0.2.{n}", 0.0) for n in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_one_person_has_one_bucket() -> None:
    assert bucket_of("2001:db8::1") == bucket_of("2001:db8::ffff:1") == bucket_of("2001:db8::1%eth0")
    assert bucket_of("2001:db8:0:1::1") != bucket_of("2001:db8:0:2::1")
    assert bucket_of("::ffff:192.0.2.7") == bucket_of("192.0.2.7")
    assert len(bucket_of("x" * 1000)) == 64


@given(st.text())
def test_any_address_has_a_bucket(address: str) -> None:
    assert len(bucket_of(address)) <= 64


@pytest.mark.parametrize("rate", [(0, 1), (1, 0.5), (-1, 5), (float("nan"), 5), (float("inf"), 5), (1, float("inf"))])
def test_a_rate_must_make_sense(rate: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="burst"):
        Rate(*rate)
