"""Placement against a naive oracle."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from manager.placement import NodeLoad, place, weight
from wire.ids import SessionId

nodes = st.lists(
    st.builds(NodeLoad, st.sampled_from([f"relay-{n}" for n in range(8)]), st.integers(0, 3), st.integers(0, 2)),
    unique_by=lambda load: load.node,
    max_size=8,
)
sessions = st.integers(1, (1 << 64) - 1).map(SessionId)


def naive(session: SessionId, live: list[NodeLoad], primary: str | None) -> list[str]:
    """Take the best of what is left, again and again."""
    left, order = list(live), []
    while left:
        best = left[0]
        for other in left[1:]:
            if other.node == primary:
                best = other
            elif best.node != primary:
                if other.links != best.links:
                    best = other if other.links < best.links else best
                elif other.sessions != best.sessions:
                    best = other if other.sessions < best.sessions else best
                elif weight(session, other.node) < weight(session, best.node):
                    best = other
        order.append(best.node)
        left.remove(best)
    return order


@given(sessions, nodes, st.one_of(st.none(), st.sampled_from([f"relay-{n}" for n in range(8)])))
def test_place_agrees_with_the_naive_way(session: SessionId, live: list[NodeLoad], primary: str | None) -> None:
    assert place(session, live, primary) == naive(session, live, primary)


@given(sessions, nodes, st.randoms())
def test_the_order_of_the_question_does_not_matter(session: SessionId, live: list[NodeLoad], random: Random) -> None:
    shuffled = list(live)
    random.shuffle(shuffled)
    assert place(session, shuffled) == place(session, live)


def test_nothing_live_is_nothing() -> None:
    assert place(SessionId(1), [], "relay-1") == []


def test_G36_equal_nodes_share_new_sessions() -> None:
    live = [NodeLoad(f"relay-{n}") for n in range(4)]
    firsts = [place(SessionId(session), live)[0] for session in range(1, 401)]
    assert all(60 < firsts.count(load.node) < 140 for load in live)
