"""The fuzzers find nothing in a short run; and they would, if there were something."""

from collections.abc import Callable

import numpy as np
import pytest

from endpoint.screen import decoder, layout
from endpoint.screen.picture import Rect
from tests.fuzz import screen

EXECUTIONS = 100_000


def test_the_screen_decoder_survives_mutants() -> None:
    accepted = screen.run(seed=20_011, first=0, executions=EXECUTIONS)
    assert EXECUTIONS / 20 < accepted < EXECUTIONS / 2, "mutants are neither all good nor all bad"


def without_bounds(numbers: bytes, width: int, height: int) -> tuple[Rect, ...]:
    return tuple(Rect(*row) for row in np.frombuffer(numbers, ">u2").reshape(-1, 4).tolist())


def drawn_at_once(self: decoder.Decoder, update: bytes, *, restart: bool) -> list[Rect]:
    """A decoder that draws one part before it has looked at the next."""
    for at, part in enumerate(screen.sections(update)):
        genuine(self, update[:1] + part, restart=restart and at == 0)
    return []


genuine = decoder.Decoder.apply


@pytest.mark.parametrize(("where", "name", "fault"), [(layout, "_rects_untrusted", without_bounds), (decoder.Decoder, "apply", drawn_at_once)])
def test_a_fault_is_found(where: object, name: str, fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = screen.Bench()
    monkeypatch.setattr(where, name, fault)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        sum(bench.once(1, number) for number in range(5000))
