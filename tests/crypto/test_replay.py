"""Each replay policy against a naive one that remembers everything."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import Gap, PacketRefused, Replayed
from crypto.replay import WINDOW, Replay, StrictlyNext, StrictlyRising, Window

COUNTERS = st.lists(
    st.one_of(st.integers(0, 40), st.integers(WINDOW - 20, WINDOW + 40), st.integers(0, 5000), st.integers(0, 2**64 - 1)), max_size=60
)
STARTS = st.one_of(st.just(-1), st.integers(0, 40), st.integers(0, 2**64 - 1))

Oracle = Callable[[set[int], int, int], type[PacketRefused] | None]


def next_oracle(taken: set[int], start: int, counter: int) -> type[PacketRefused] | None:
    highest = max(taken, default=start)
    return Replayed if counter <= highest else Gap if counter > highest + 1 else None


def rising_oracle(taken: set[int], start: int, counter: int) -> type[PacketRefused] | None:
    return Replayed if counter <= max(taken, default=start) else None


def window_oracle(taken: set[int], start: int, counter: int) -> type[PacketRefused] | None:
    if counter in taken or counter <= start or counter <= max(taken, default=start) - WINDOW:
        return Replayed
    return None


def run(policy: Replay, oracle: Oracle, start: int, counters: list[int]) -> None:
    taken: set[int] = set()
    for counter in counters:
        expected = oracle(taken, start, counter)
        for _ in range(2):  # check changes nothing
            if expected is None:
                policy.check(counter)
            else:
                with pytest.raises(expected):
                    policy.check(counter)
        if expected is None:
            policy.accept(counter)
            taken.add(counter)
        else:
            with pytest.raises(expected):
                policy.accept(counter)
        assert policy.last == max(taken, default=start)


@given(STARTS, COUNTERS)
def test_strictly_next(start: int, counters: list[int]) -> None:
    # mostly contiguous, so that something is accepted
    run(StrictlyNext(start), next_oracle, start, [start + 1, start + 2, *counters, start + 3])


@given(STARTS, COUNTERS)
def test_strictly_rising(start: int, counters: list[int]) -> None:
    run(StrictlyRising(start), rising_oracle, start, counters)


@given(STARTS, COUNTERS)
def test_window(start: int, counters: list[int]) -> None:
    run(Window(start), window_oracle, start, counters)
    near = [start + 1 + counter % (2 * WINDOW) for counter in counters]
    run(Window(start), window_oracle, start, near)


def test_the_window_stays_small_after_a_leap() -> None:
    window = Window()
    window.accept(0)
    window.accept(2**64 - 1)
    assert window._taken.bit_length() <= WINDOW
    with pytest.raises(Replayed):
        window.check(0)
