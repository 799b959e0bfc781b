"""The race over addresses: who wins, what becomes of the losers, and what a person is told when nobody answers."""

import os
from contextlib import suppress

import pytest
import trio
import trio.testing

from net.dial import KNOCK_EVERY, Unreachable, dial, knock
from net.listener import Address
from net.stream import TlsStream
from net.tls import TlsReason, TlsRefused
from tests.net.cluster import PATIENCE, Cluster


async def echo(stream: TlsStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def closed_port() -> Address:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listener.socket.getsockname()
    await listener.aclose()
    return (str(address[0]), int(address[1]))


def listening_inodes() -> set[str]:
    """The listening TCP sockets of this process (proc(5): state 0A is LISTEN)."""
    listening = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with open(table) as lines:
            listening |= {fields[9] for fields in (line.split() for line in lines) if fields[3] == "0A"}
    ours = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            ours.add(target[8:-1])
    return listening & ours


async def test_a_dead_address_costs_little_and_the_next_one_wins(cluster: Cluster) -> None:
    async with cluster.serving(echo) as address:
        with trio.fail_after(PATIENCE):
            async with await dial([await closed_port(), address], cluster.caller(), server_kind="mcs") as stream:
                assert stream.remote_address == address


async def test_an_address_that_swallows_everything_does_not_hold_up_the_race(cluster: Cluster) -> None:
    """It accepts and never says a word; the next address starts a little later and wins. The loser is closed."""
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent, cluster.serving(echo) as address:
        with trio.fail_after(PATIENCE):
            async with await dial([silent.socket.getsockname()[:2], address], cluster.caller(), server_kind="mcs") as stream:
                assert stream.remote_address == address
                loser = await silent.accept()
                async with loser:
                    with suppress(trio.BrokenResourceError):  # an end or a reset: closed in either way
                        while await loser.receive_some(10_000):
                            pass


async def test_the_next_address_starts_after_the_stagger(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    silent = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(3)]
    with pytest.raises(Unreachable, match="no answer in time"):
        await dial([listener.socket.getsockname()[:2] for listener in silent], cluster.caller(), server_kind="mcs", timeout=5)
    assert trio.current_time() == pytest.approx(5)
    for listener in silent:
        await listener.aclose()


async def test_a_server_of_the_wrong_kind_does_not_win(cluster: Cluster) -> None:
    async with cluster.serving(echo) as relay, cluster.serving(echo, identity=cluster.manager) as manager:
        with trio.fail_after(PATIENCE):
            async with await dial([relay, manager], cluster.caller(), server_kind="manager", cluster="home") as stream:
                assert stream.peer == cluster.manager.name


async def test_a_refusal_says_more_than_unreachable(cluster: Cluster) -> None:
    async with cluster.serving(echo, identity=cluster.foreign) as foreign:
        with trio.fail_after(PATIENCE), pytest.raises(TlsRefused) as refused:
            await dial([await closed_port(), foreign], cluster.caller(), server_kind="mcs")
    assert refused.value.reason is TlsReason.FOREIGN


async def test_nobody_there_is_told_with_the_addresses(cluster: Cluster) -> None:
    host, port = await closed_port()
    with pytest.raises(Unreachable) as refused:
        await dial([(host, port), ("no-such-host.invalid", 443)], cluster.caller(), server_kind="mcs")
    text = str(refused.value)
    assert text.startswith("unreachable: ")
    assert f"{host}:{port}" in text
    assert "refused" in text
    with pytest.raises(Unreachable, match="no address"):
        await dial([], cluster.caller(), server_kind="mcs")


async def test_knocking_ends_with_the_first_answer_and_where_all_refuse(cluster: Cluster) -> None:
    dead = await closed_port()
    with trio.fail_after(PATIENCE):
        assert not await knock([dead], within=PATIENCE * 2)
        assert not await knock([], within=PATIENCE * 2)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listener.socket.getsockname()
        assert await knock([dead, (host, port)], within=PATIENCE * 2)
        await listener.aclose()


async def test_a_line_that_is_whole_again_is_noticed_by_the_next_knock(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def lost(host: str, port: int) -> trio.abc.Stream:
        nonlocal calls
        calls += 1
        if calls < 4:
            await trio.sleep_forever()
        return trio.testing.memory_stream_pair()[0]

    monkeypatch.setattr(trio, "open_tcp_stream", lost)
    assert await knock([("192.0.2.1", 1)], within=5.0)
    assert trio.current_time() == pytest.approx(3 * KNOCK_EVERY)
    calls = -1000
    assert not await knock([("192.0.2.1", 1)], within=5.0)


async def test_a_cancelled_dial_leaves_no_socket(cluster: Cluster) -> None:
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent:
        before = len(os.listdir("/proc/self/fd"))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    await dial([silent.socket.getsockname()[:2]] * 3, cluster.caller(), server_kind="mcs")

                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked(0.05)
                scope.cancel()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_G33_whoever_dials_opens_no_listening_socket(cluster: Cluster) -> None:
    async with cluster.serving(echo) as address:
        before = listening_inodes()
        assert before, "the listener of the test itself must be seen, or nothing is proved"
        async with await dial([await closed_port(), address], cluster.caller(), server_kind="mcs") as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            assert listening_inodes() == before
