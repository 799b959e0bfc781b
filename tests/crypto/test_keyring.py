"""Which keys are open, for which packets, how long; and that no (key, counter) pair ever repeats (row G27)."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crypto.errors import BadLength, CryptoError, EpochClosed, NoSuchStream, UnknownEpoch
from crypto.keyring import LEAVE_GRACE, MAX_WARM, RETENTION, Keyring
from crypto.schedule import group_prk, ratchet, stream_keys
from crypto.seal import Opener, Sealer
from crypto.suite import MAX_BLOCKS, MAX_PACKETS

SESSION, ME, ANN, BOB = 5, 1, 2, 3
GK = [bytes([number]) * 16 for number in range(8)]


def header(counter: int) -> bytes:
    return bytes(24) + counter.to_bytes(8, "big")


def seal_next(sealer: Sealer) -> bytes:
    return sealer.seal(header(sealer.last + 1), sealer.last + 1, b"x")


def ring_at(epoch: int, now: float = 0.0) -> Keyring:
    ring = Keyring(SESSION, ME)
    ring.install(epoch, GK[epoch % 8], now)
    ring.advance(epoch, now)
    return ring


def opens(ring: Keyring, channel: int, epoch: int, now: float) -> bool:
    try:
        ring.opener(ANN, 0, channel, epoch, now)
    except EpochClosed:
        return False
    return True


@pytest.mark.parametrize(("channel", "seconds"), [(1, 180), (2, 180), (8, 180), (5, 5), (6, 5), (7, 5), (9, 5)])
def test_a_closed_epoch_stays_open_as_long_as_its_channel_says(channel: int, seconds: int) -> None:
    ring = ring_at(1)
    ring.install(2, GK[2], 50.0)
    assert opens(ring, channel, 1, 10_000.0)  # still current
    ring.advance(2, 100.0)
    assert opens(ring, channel, 1, 100.0)
    assert opens(ring, channel, 1, 100.0 + seconds - 0.001)
    assert not opens(ring, channel, 1, 100.0 + seconds)
    ring.expire(100.0 + seconds)
    assert opens(ring, channel, 2, 100.0 + seconds)


def test_of_a_full_hall_only_the_newest_openers_are_kept() -> None:
    ring, peers = ring_at(1), range(2, 2 + 2 * MAX_WARM)
    for peer in peers:
        ring.set_key_channel(peer, peer.to_bytes(32, "big"))
        ring.opener(peer, ME, 0, 0, 0.0)
    assert sum(len(peer.openers) for peer in ring._peers.values()) == MAX_WARM
    theirs = Sealer(stream_keys(peers[0].to_bytes(32, "big"), peers[0], ME, 0))
    packet = seal_next(theirs)
    ring.opener(peers[0], ME, 0, 0, 0.0).verify(packet)  # made anew


def test_expired_keys_leave_the_memory() -> None:
    ring = ring_at(1)
    ring.opener(ANN, 0, 5, 1, 0.0)
    ring.opener(ANN, 0, 2, 1, 0.0)
    ring.ratchet_to(2, 100.0)
    ring.expire(105.0)
    assert list(ring._epochs[1].openers) == [(ANN, 2)]
    ring.expire(279.9)
    assert set(ring._epochs) == {1, 2}
    ring.expire(280.0)
    assert set(ring._epochs) == {2}


def test_a_group_key_counts_only_when_it_is_committed() -> None:
    ring = Keyring(SESSION, ME)
    for attempt in (lambda: ring.sealer(0, 2), lambda: ring.opener(ANN, 0, 2, 1, 0.0), lambda: ring.ratchet_to(2, 0.0)):
        with pytest.raises(UnknownEpoch):
            attempt()
    ring.install(1, GK[1], 0.0)
    with pytest.raises(UnknownEpoch):
        ring.sealer(0, 2)
    with pytest.raises(UnknownEpoch):
        ring.opener(ANN, 0, 2, 1, 0.0)
    with pytest.raises(UnknownEpoch):
        ring.advance(2, 0.0)
    assert ring.current is None
    ring.advance(1, 0.0)
    assert ring.current == 1
    assert ring.group_key == GK[1]
    assert ring.sealer(0, 2)[0] == 1


def test_until_the_log_commits_it_another_key_may_come_for_the_same_epoch() -> None:
    """A second dismissal wraps the same epoch anew; the entry's digest chooses. The first key's holders are not heard."""
    ring = ring_at(1)
    ring.install(2, GK[2], 0.0)
    ring.install(2, GK[3], 0.0)
    ring.advance(2, 0.0)
    assert ring.group_key == GK[3]
    ring.install(2, GK[3], 0.0)  # a repeated packet changes nothing
    with pytest.raises(EpochClosed):
        ring.install(2, GK[2], 0.0)
    with pytest.raises(EpochClosed):
        ring.install(1, GK[1], 0.0)
    ring.advance(2, 0.0)
    with pytest.raises(EpochClosed):
        ring.advance(1, 0.0)


def test_a_ratchet_is_the_schedules() -> None:
    ring = ring_at(3)
    key = ring.ratchet_to(4, 1.0)
    assert key == ring.group_key == ratchet(group_prk(SESSION, 3, GK[3]))
    for epoch in (3, 4):
        with pytest.raises(EpochClosed):
            ring.ratchet_to(epoch, 2.0)


def test_a_take_overs_term_is_later_than_every_epoch_before() -> None:
    ring = ring_at(0x00FFFFFF)
    ring.ratchet_to(0x01000000, 1.0)
    assert not opens(ring, 2, 0x00000007, 1.0)
    assert opens(ring, 2, 0x00FFFFFF, 1.0)


@pytest.mark.parametrize("epoch", [0, -1, 2**32])
def test_an_epoch_that_cannot_be_is_refused(epoch: int) -> None:
    with pytest.raises(NoSuchStream):
        ring_at(1).install(epoch, GK[1], 0.0)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(BadLength):
        ring_at(1).install(2, bytes(15), 0.0)


@pytest.mark.parametrize(
    ("sender", "recipient", "channel", "epoch"),
    [
        (ANN, 0, 0, 1),
        (ANN, 0, 3, 1),
        (ANN, 0, 4, 1),
        (ANN, 0, 11, 1),
        (ANN, ME, 10, 0),
        (ANN, 0, 2, 0),
        (ANN, ME, 3, 1),
        (ANN, BOB, 3, 0),
        (ANN, ME, 255, 0),
    ],
)
def test_a_stream_that_cannot_be_is_refused(sender: int, recipient: int, channel: int, epoch: int) -> None:
    ring = ring_at(1)
    ring.set_pair(ANN, bytes(32))
    with pytest.raises(NoSuchStream):
        ring.opener(sender, recipient, channel, epoch, 0.0)


def test_a_peers_keys_are_for_their_channels() -> None:
    ring = Keyring(SESSION, ME)
    ring.set_key_channel(ANN, bytes(32))
    ring.opener(ANN, ME, 0, 0, 0.0)
    with pytest.raises(UnknownEpoch):
        ring.opener(ANN, ME, 3, 0, 0.0)
    ring.set_pair(ANN, b"p" * 32)
    ring.opener(ANN, ME, 3, 0, 0.0)
    with pytest.raises(UnknownEpoch):
        ring.sealer(BOB, 3)
    assert ring.sealer(ANN, 0) == (0, ring.sealer(ANN, 0)[1])


def test_a_leavers_packets_open_for_180_s_and_a_dismissed_ones_not_at_all() -> None:
    ring = Keyring(SESSION, ME)
    for peer in (ANN, BOB):
        ring.set_pair(peer, bytes(32))
        ring.set_key_channel(peer, b"k" * 32)
    _, old = ring.sealer(ANN, 3)
    ring.drop_peer(ANN, 10.0, LEAVE_GRACE)
    ring.drop_peer(BOB, 10.0, 0)
    ring.opener(ANN, ME, 3, 0, 189.9)
    for sender, now in ((ANN, 190.0), (BOB, 10.0)):
        with pytest.raises(EpochClosed):
            ring.opener(sender, ME, 3, 0, now)
    for attempt in (lambda: ring.sealer(ANN, 3), lambda: ring.sealer(BOB, 0), lambda: seal_next(old)):
        with pytest.raises(EpochClosed):
            attempt()
    # a dismissal during the grace ends it; and nobody comes back under the same ID
    ring.drop_peer(ANN, 20.0, 0)
    with pytest.raises(EpochClosed):
        ring.opener(ANN, ME, 3, 0, 20.0)
    for set_key in (ring.set_pair, ring.set_key_channel):
        with pytest.raises(EpochClosed):
            set_key(ANN, b"n" * 32)
    assert not ring._peers


def test_a_second_leave_does_not_prolong_the_grace() -> None:
    ring = Keyring(SESSION, ME)
    ring.set_pair(ANN, bytes(32))
    ring.drop_peer(ANN, 10.0, LEAVE_GRACE)
    ring.drop_peer(ANN, 100.0, LEAVE_GRACE)
    with pytest.raises(EpochClosed):
        ring.opener(ANN, ME, 3, 0, 190.0)


def test_a_replaced_key_opens_and_seals_nothing_more() -> None:
    ring = Keyring(SESSION, ME)
    for channel, set_key in ((0, ring.set_key_channel), (3, ring.set_pair)):
        set_key(ANN, b"a" * 32)
        _, before = ring.sealer(ANN, channel)
        opener = ring.opener(ANN, ME, channel, 0, 0.0)
        set_key(ANN, b"a" * 32)  # the same one changes nothing
        assert ring.sealer(ANN, channel)[1] is before
        assert ring.opener(ANN, ME, channel, 0, 0.0) is opener
        set_key(ANN, b"b" * 32)
        with pytest.raises(EpochClosed):
            seal_next(before)
        Opener(stream_keys(b"b" * 32, ME, ANN, channel)).verify(seal_next(ring.sealer(ANN, channel)[1]))
        ring.opener(ANN, ME, channel, 0, 0.0).verify(seal_next(Sealer(stream_keys(b"b" * 32, ANN, ME, channel))))


def test_an_epoch_that_was_passed_over_is_closed() -> None:
    ring = ring_at(1)
    ring.install(2, GK[2], 0.0)
    ring.install(3, GK[3], 0.0)
    ring.advance(3, 0.0)
    assert opens(ring, 2, 1, 1.0)
    assert not opens(ring, 2, 2, 1.0)
    assert set(ring._epochs) == {1, 3}


def test_a_peer_that_is_dropped_before_its_keys_come_never_gets_any() -> None:
    ring = Keyring(SESSION, ME)
    ring.drop_peer(ANN, 0.0, LEAVE_GRACE)
    with pytest.raises(EpochClosed):
        ring.set_pair(ANN, bytes(32))
    with pytest.raises(EpochClosed):
        ring.opener(ANN, ME, 3, 0, 1.0)


def test_G27_a_stream_has_one_sealer_and_its_counters_go_on_across_epochs() -> None:
    ring = ring_at(1)
    _, first = ring.sealer(0, 2)
    assert ring.sealer(0, 2)[1] is first
    seal_next(first)
    seal_next(first)
    ring.ratchet_to(2, 1.0)
    epoch, second = ring.sealer(0, 2)
    assert (epoch, second.last) == (2, 1)
    with pytest.raises(EpochClosed):
        seal_next(first)
    assert ring.sealer(0, 5)[1].last == -1  # another stream counts by itself


def test_G27_the_same_key_set_again_does_not_turn_the_counter_back() -> None:
    ring = Keyring(SESSION, ME)
    for prk in (b"a" * 32, b"b" * 32, b"a" * 32, b"a" * 32):
        ring.set_pair(ANN, prk)
        ring.set_key_channel(ANN, prk)
        for channel in (0, 3):
            seal_next(ring.sealer(ANN, channel)[1])
    assert ring.sealer(ANN, 3)[1].last == ring.sealer(ANN, 0)[1].last == 3


def test_G27_a_restarted_organizer_continues_its_streams() -> None:
    ring = ring_at(1)
    packet = seal_next(ring.sealer(0, 1)[1])
    seal_next(ring.sealer(0, 1)[1])
    again = ring_at(1)
    again.resume(0, 1, ring.sealer(0, 1)[1].last)
    again.resume(0, 1, 0)  # never back
    sealer = again.sealer(0, 1)[1]
    assert sealer.last == 1
    with pytest.raises(CryptoError):
        sealer.seal(packet[:32], 0, b"y")


def test_a_change_is_due_after_an_hour_or_half_of_what_a_key_may_seal() -> None:
    assert not Keyring(SESSION, ME).due(1e9)
    ring = ring_at(1, now=100.0)
    assert not ring.due(100.0 + 3599.9)
    assert ring.due(100.0 + 3600.0)
    ring.ratchet_to(2, 3700.0)
    assert not ring.due(3700.0)
    sealer = ring.sealer(0, 5)[1]
    sealer.packets_left = MAX_PACKETS // 2
    assert ring.due(3700.0)
    sealer.packets_left, sealer.blocks_left = MAX_PACKETS, MAX_BLOCKS // 2
    assert ring.due(3700.0)
    ring.ratchet_to(3, 3701.0)
    assert not ring.due(3701.0)


def test_after_the_end_nothing_opens_and_nothing_seals() -> None:
    ring = ring_at(1)
    ring.set_pair(ANN, bytes(32))
    _, sealer = ring.sealer(0, 2)
    ring.forget()
    attempts: list[Callable[[], Any]] = [
        lambda: ring.sealer(0, 2),
        lambda: ring.sealer(ANN, 3),
        lambda: ring.opener(ANN, 0, 2, 1, 0.0),
        lambda: ring.opener(ANN, ME, 3, 0, 0.0),
        lambda: ring.install(2, GK[2], 0.0),
        lambda: ring.advance(1, 0.0),
        lambda: ring.ratchet_to(2, 0.0),
        lambda: ring.set_pair(BOB, bytes(32)),
        lambda: ring.set_key_channel(BOB, bytes(32)),
        lambda: ring.group_key,
        lambda: seal_next(sealer),
    ]
    for attempt in attempts:
        with pytest.raises(EpochClosed):
            attempt()
    ring.drop_peer(ANN, 0.0, 0)
    ring.expire(1e9)
    assert not ring.due(1e9)
    assert not ring._epochs
    assert not ring._peers


CHANNELS = st.sampled_from([0, 2, 3, 5])
PEERS = st.sampled_from([ANN, BOB, 4])
USUAL = st.sampled_from([(0, 2), (0, 2), (0, 5), (ANN, 0), (ANN, 3), (BOB, 3)])  # recipient or sender, channel
PRKS = st.sampled_from([b"a" * 32, b"b" * 32])


class AgainstAnOracle(RuleBasedStateMachine):
    """The keyring beside an oracle that only writes down what happened and answers from the whole story."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ring = Keyring(SESSION, ME)
        # the story
        self.keys: dict[int, bytes] = {}  # epoch → the key that counts
        self.commits: list[tuple[int, float]] = []
        self.pairs: dict[tuple[int, bool], bytes] = {}  # (peer, channel 0?) → PRK
        self.dropped: dict[int, float] = {}  # peer → when it closes
        self.used: set[tuple[bytes, int, int, int]] = set()  # PRK, recipient, channel, counter
        self.sealers: list[tuple[Sealer, tuple[bytes, int, int]]] = []
        self.highest: dict[tuple[int, int], int] = {}

    @property
    def current(self) -> int:
        return self.commits[-1][0] if self.commits else 0

    def attempt(self, expected: type[CryptoError] | None, action: Callable[[], Any]) -> Any:
        if expected is None:
            return action()
        with pytest.raises(expected):
            action()
        return None

    # what happens

    @initialize(begun=st.sampled_from([True, True, True, False]))
    def begin(self, begun: bool) -> None:
        """Mostly in the middle of a meeting: else nearly every step is a refusal."""
        if begun:
            self.install(1, GK[1])
            self.advance(1)
            for peer, key_channel in ((ANN, True), (ANN, False), (BOB, False)):
                self.set_key(peer, b"a" * 32, key_channel)

    @rule(key=st.sampled_from(GK))
    def rekey(self, key: bytes) -> None:
        self.install(1, key)
        self.advance(1)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 5.0, 60.0, 175.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.ring.expire(self.now)

    @rule(ahead=st.integers(-1, 3), key=st.sampled_from(GK))
    def install(self, ahead: int, key: bytes) -> None:
        epoch = self.current + ahead
        expected: type[CryptoError] | None = None
        if epoch < 1:
            expected = NoSuchStream
        elif epoch < self.current or (epoch == self.current and key != self.keys[epoch]):
            expected = EpochClosed
        self.attempt(expected, lambda: self.ring.install(epoch, key, self.now))
        if expected is None:
            self.keys[epoch] = key

    @rule(ahead=st.integers(-1, 3))
    def advance(self, ahead: int) -> None:
        epoch = self.current + ahead
        expected = EpochClosed if epoch < self.current else None if epoch in self.keys or (ahead == 0 and self.commits) else UnknownEpoch
        if not self.commits and epoch < 1:
            expected = UnknownEpoch
        self.attempt(expected, lambda: self.ring.advance(epoch, self.now))
        if expected is None and epoch > self.current:
            self.commits.append((epoch, self.now))

    @rule(ahead=st.integers(0, 2))
    def ratchet(self, ahead: int) -> None:
        epoch = self.current + ahead
        expected = UnknownEpoch if not self.commits else EpochClosed if ahead == 0 else None
        key = self.attempt(expected, lambda: self.ring.ratchet_to(epoch, self.now))
        if expected is None:
            assert key == ratchet(group_prk(SESSION, self.current, self.keys[self.current]))
            self.keys[epoch] = key
            self.commits.append((epoch, self.now))

    @rule(peer=PEERS, prk=PRKS, key_channel=st.booleans())
    def set_key(self, peer: int, prk: bytes, key_channel: bool) -> None:
        expected = EpochClosed if peer in self.dropped else None
        action = self.ring.set_key_channel if key_channel else self.ring.set_pair
        self.attempt(expected, lambda: action(peer, prk))
        if expected is None:
            self.pairs[peer, key_channel] = prk

    @rule(peer=st.sampled_from([BOB, 4]), grace=st.sampled_from([0.0, LEAVE_GRACE]))  # one peer stays
    def drop(self, peer: int, grace: float) -> None:
        self.ring.drop_peer(peer, self.now, grace)
        self.dropped[peer] = min(self.dropped.get(peer, self.now + grace), self.now + grace)

    @rule()
    def restart(self) -> None:
        """A new process with what was on the disk: the current key, the peers, and the last counter of each stream."""
        self.ring = Keyring(SESSION, ME)
        self.sealers.clear()
        self.keys = {self.current: self.keys[self.current]} if self.commits else {}
        self.commits = self.commits[-1:]
        if self.commits:
            self.commits = [(self.current, self.now)]
            self.ring.install(self.current, self.keys[self.current], self.now)
            self.ring.advance(self.current, self.now)
        for (peer, key_channel), prk in self.pairs.items():
            if peer not in self.dropped:
                (self.ring.set_key_channel if key_channel else self.ring.set_pair)(peer, prk)
        for peer in self.dropped:
            self.ring.drop_peer(peer, self.now, 0)
            self.dropped[peer] = self.now
        for (recipient, channel), last in self.highest.items():
            if recipient not in self.dropped:
                self.ring.resume(recipient, channel, last)

    # what it must answer

    def prk(self, recipient: int, channel: int) -> bytes | None:
        if recipient == 0:
            return group_prk(SESSION, self.current, self.keys[self.current]) if self.commits else None
        return self.pairs.get((recipient, channel == 0))

    @rule(data=st.data(), leap=st.sampled_from([1, 1, 1, 7]))
    def seal_where_it_is_usual(self, data: st.DataObject, leap: int) -> None:
        self.seal(*data.draw(USUAL), leap)

    @rule(recipient=st.sampled_from([0, ANN, BOB]), channel=CHANNELS, leap=st.sampled_from([1, 7]))
    def seal(self, recipient: int, channel: int, leap: int) -> None:
        prk = self.prk(recipient, channel)
        expected: type[CryptoError] | None = None
        if recipient == 0 and channel not in RETENTION:
            expected = NoSuchStream
        elif recipient in self.dropped:
            expected = EpochClosed
        elif prk is None:
            expected = UnknownEpoch
        found = self.attempt(expected, lambda: self.ring.sealer(recipient, channel))
        if found is None:
            return
        assert prk is not None
        epoch, sealer = found
        assert epoch == (self.current if recipient == 0 else 0)
        assert sealer.last == self.highest.get((recipient, channel), -1)
        self.sealers.append((sealer, (prk, recipient, channel)))
        self.seal_with(sealer, (prk, recipient, channel), sealer.last + leap)
        Opener(stream_keys(prk, ME, recipient, channel)).verify(sealer.seal(header(sealer.last + 1), sealer.last + 1, b"!"))
        self.highest[recipient, channel] = sealer.last
        self.used.add((prk, recipient, channel, sealer.last))

    def seal_with(self, sealer: Sealer, stream: tuple[bytes, int, int], counter: int) -> None:
        sealer.seal(header(counter), counter, b"x")
        pair = (*stream, counter)
        assert pair not in self.used, "a (key, counter) pair repeats"
        self.used.add(pair)
        self.highest[stream[1], stream[2]] = counter

    @rule(data=st.data(), ahead=st.integers(-1, 2))
    def seal_with_an_old_sealer(self, data: st.DataObject, ahead: int) -> None:
        if self.sealers:
            sealer, stream = data.draw(st.sampled_from(self.sealers))
            with contextlib.suppress(CryptoError):
                self.seal_with(sealer, stream, max(0, sealer.last + ahead))

    def expected_opener(self, sender: int, recipient: int, channel: int, epoch: int) -> type[CryptoError] | bytes:
        """The PRK that must open such a packet now, or the refusal."""
        if recipient == 0:
            committed = {number: index for index, (number, _) in enumerate(self.commits)}
            if channel not in RETENTION or epoch == 0:
                return NoSuchStream
            if not self.commits or epoch > self.current:
                return UnknownEpoch
            if epoch not in committed:
                return EpochClosed
            if epoch != self.current and self.now >= self.commits[committed[epoch] + 1][1] + RETENTION[channel]:
                return EpochClosed
            return group_prk(SESSION, epoch, self.keys[epoch])
        if epoch != 0 or recipient != ME:
            return NoSuchStream
        prk = self.pairs.get((sender, channel == 0))
        if sender in self.dropped and (self.now >= self.dropped[sender] or prk is None):
            return EpochClosed
        return UnknownEpoch if prk is None else prk

    @rule(data=st.data(), behind=st.sampled_from([0, 0, 1, 1, 2, 3, -1]))
    def open_what_is_usual(self, data: st.DataObject, behind: int) -> None:
        peer, channel = data.draw(USUAL)
        if peer == 0:
            self.open(ANN, 0, channel, max(0, self.current - behind))
        else:
            self.open(peer, ME, channel, 0)

    @rule(sender=PEERS, recipient=st.sampled_from([0, ME, BOB]), channel=CHANNELS, epoch=st.integers(0, 4))
    def open(self, sender: int, recipient: int, channel: int, epoch: int) -> None:
        expected = self.expected_opener(sender, recipient, channel, epoch)
        if isinstance(expected, bytes):
            packet = seal_next(Sealer(stream_keys(expected, sender, recipient, channel)))
            self.ring.opener(sender, recipient, channel, epoch, self.now).verify(packet)
        else:
            self.attempt(expected, lambda: self.ring.opener(sender, recipient, channel, epoch, self.now))

    @invariant()
    def the_current_epoch_is_the_last_one_committed(self) -> None:
        assert self.ring.current == (self.current if self.commits else None)


AgainstAnOracle.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestKeyringAgainstAnOracle = AgainstAnOracle.TestCase
