"""Have-vectors against a naive oracle: the set of all packets that were ever taken."""

from hypothesis import given
from hypothesis import strategies as st

from wire.control import MAX_ENTRIES
from wire.have import HaveVector
from wire.ids import ParticipantId, Stream

streams = st.builds(Stream, st.integers(1, 3).map(ParticipantId), st.integers(0, 2).map(ParticipantId), st.integers(0, 2))
steps = st.lists(st.tuples(st.sampled_from(("note", "jump", "discard", "merge")), streams, st.integers(-1, 6)), max_size=60)


class Oracle:
    """Every counter that counts as had, one by one."""

    def __init__(self) -> None:
        self.had: dict[Stream, set[int]] = {}

    def last(self, stream: Stream) -> int:
        return max(self.had.get(stream, set()), default=-1)

    def note(self, stream: Stream, counter: int) -> bool:
        if counter < 0 or counter in self.had.get(stream, set()) or (counter and counter - 1 not in self.had.get(stream, set())):
            return False
        self.had.setdefault(stream, set()).add(counter)
        return True

    def jump(self, stream: Stream, counter: int) -> None:
        if counter > self.last(stream):
            self.had.setdefault(stream, set()).update(range(counter + 1))


@given(steps)
def test_a_vector_is_what_a_set_of_packets_would_be(taken: list[tuple[str, Stream, int]]) -> None:
    vector, oracle = HaveVector(), Oracle()
    for step, stream, counter in taken:
        match step:
            case "note":
                assert vector.note(stream, counter) == oracle.note(stream, counter)
            case "jump":
                vector.jump(stream, counter)
                oracle.jump(stream, counter)
            case "merge":
                vector.merge([(*stream, counter), (*stream, counter - 1)])
                oracle.jump(stream, counter)
            case _:
                vector.discard(stream)
                oracle.had.pop(stream, None)
        assert vector.last(stream) == oracle.last(stream)
        for asked in range(8):
            assert vector.lacks(stream, asked) == (asked not in oracle.had.get(stream, set()))
    assert set(vector) == set(oracle.had)
    assert len(vector) == len(oracle.had)
    assert vector == HaveVector(vector.positions())


@given(st.integers(0, 3 * MAX_ENTRIES))
def test_parts_are_the_whole_in_legal_lists(count: int) -> None:
    vector = HaveVector((sender + 1, 0, 2, sender) for sender in range(count))
    parts = vector.parts()
    assert len(parts) >= 1
    assert all(len(part) <= MAX_ENTRIES for part in parts)
    again = HaveVector()
    for part in parts:
        again.merge(part)
    assert again == vector


@given(steps, steps)
def test_merging_is_a_union_in_either_order(one: list[tuple[str, Stream, int]], two: list[tuple[str, Stream, int]]) -> None:
    a = HaveVector((*stream, counter) for _, stream, counter in one)
    b = HaveVector((*stream, counter) for _, stream, counter in two)
    ab, ba = HaveVector(a.positions()), HaveVector(b.positions())
    ab.merge(b.positions())
    ba.merge(a.positions())
    assert ab == ba
    assert all(ab.last(stream) == max(a.last(stream), b.last(stream)) for stream in ab)
