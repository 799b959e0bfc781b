"""Which keys are open, for which packets, how long: the keys that one member holds in one session.

    epoch e (group)    install ──▶ waiting ──advance──▶ current ──advance to a later one──▶ closing ──5 s / 180 s──▶ erased
    roster (channel 10) set_roster ──▶ open ──set_roster──▶ erased
    peer (unicast)     set_key_channel, set_pair ──▶ open ──drop_peer──▶ closing ──grace──▶ erased, for good

- Packets to everyone (recipient 0) are sealed under the current epoch alone. They are opened under the current epoch and
  under those before it that are still closing: channels 5, 6, 7, 9 for 5 s, channels 1, 2, 8 for 180 s.
- A group key that has come but is not committed (`advance`) seals and opens nothing: until the log commits it, another key
  may come for the same epoch (a second dismissal), and the first one's holders must not be heard.
- Unicast packets (recipient not 0, and all of channel 0) have epoch 0 and stay open while both ends are on the roster.
  Channel 0 uses the peer's key-encrypting key, the other channels the pair's.
- Channel 10 to everyone has a key of its own, which newcomers are told: the newest one alone seals and opens.
- A later epoch, or a peer without a key, is *unknown*: the packet may wait. An earlier epoch without a key, or a dropped
  peer, is *closed*: it will never open.

**No (key, counter) pair repeats** (row G27): there is one sealer per stream. When its key is replaced it is closed for good, and
the stream's next sealer starts at its last counter, under whatever key. This memory lasts as long as the keyring, so nothing
that is installed twice or dropped and set again can turn a counter back. A stream that began in an earlier process
continues with `resume`.

"Erased" means: no reference is left. Python cannot overwrite memory. Within the 180 s the epoch's PRK is still held,
so the 5 s of the fast channels is a rule of this file, not of mathematics.

The caller passes `now`: seconds of a monotonic clock. Not for use from several threads at once.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from crypto.errors import EpochClosed, NoSuchStream, UnknownEpoch
from crypto.schedule import group_prk, ratchet, roster_prk, stream_keys
from crypto.seal import Opener, Sealer
from crypto.suite import MAX_AGE, MAX_BLOCKS, MAX_PACKETS

EVERYONE: Final = 0  # the recipient of group packets
KEY_CHANNEL: Final = 0
ROSTER_CHANNEL: Final = 10
LEAVE_GRACE: Final = 180.0  # seconds a leaver's unicast packets still open; after a dismissal: none
MAX_WARM: Final = 256  # openers of unicast streams that are kept ready

# how long a closed epoch still opens packets to everyone, in seconds, by channel
RETENTION: Final = {1: 180.0, 2: 180.0, 8: 180.0, 5: 5.0, 6: 5.0, 7: 5.0, 9: 5.0}
_LONGEST: Final = max(RETENTION.values())
_CHANNELS: Final = range(11)
_LAST_EPOCH: Final = 2**32 - 1


@dataclass(slots=True)
class _Epoch:
    group_key: bytes = field(repr=False)
    prk: bytes = field(repr=False)
    closed_at: float | None = None  # when a later epoch was committed
    openers: dict[tuple[int, int], Opener] = field(default_factory=dict, repr=False)  # by sender, channel


@dataclass(slots=True)
class _Peer:
    key_channel: bytes | None = field(default=None, repr=False)
    pair: bytes | None = field(default=None, repr=False)
    closes_at: float | None = None  # set by drop_peer
    openers: dict[int, Opener] = field(default_factory=dict, repr=False)  # by channel

    def prk(self, channel: int) -> bytes | None:
        return self.key_channel if channel == KEY_CHANNEL else self.pair


@dataclass(slots=True)
class _Roster:
    epoch: int
    key: bytes = field(repr=False)
    prk: bytes = field(repr=False)
    openers: dict[int, Opener] = field(default_factory=dict, repr=False)  # by sender


class Keyring:
    """The keys of participant `me` in `session`."""

    def __init__(self, session: int, me: int) -> None:
        self._session = session
        self._me = me
        self._epochs: dict[int, _Epoch] = {}
        self._current: int | None = None
        self._current_since = 0.0
        self._roster: _Roster | None = None
        self._peers: dict[int, _Peer] = {}
        self._closing: set[int] = set()  # peers that were dropped and are not erased yet
        self._gone: set[int] = set()  # dropped and erased; a participant ID never comes back
        self._sealers: dict[tuple[int, int], Sealer] = {}  # by recipient, channel: the stream's newest, open or closed
        self._warm: deque[tuple[int, int]] = deque()  # peers' openers, by peer and channel, oldest first
        self._forgotten = False

    # the group's epochs

    @property
    def current(self) -> int | None:
        """The epoch that is sealed under; None before the first one is committed."""
        return self._current

    @property
    def group_key(self) -> bytes:
        """The current epoch's group key, for wrapping to a newcomer. Raises UnknownEpoch before the first one."""
        return self._current_epoch()[1].group_key

    def install(self, epoch: int, group_key: bytes, now: float) -> None:
        """Hold the key of a later epoch until `advance` commits it. For an epoch not committed yet, the newest key counts.

        The key of the current epoch may come again. Raises EpochClosed for an earlier epoch, or another key for the current
        one; BadLength for a key that is not 16 bytes; NoSuchStream for an epoch that is not 1…2^32-1.
        """
        self._require_live()
        self.expire(now)
        if not 0 < epoch <= _LAST_EPOCH:
            raise NoSuchStream
        if self._current is not None and epoch <= self._current:
            if epoch < self._current or group_key != self.group_key:
                raise EpochClosed
            return
        self._epochs[epoch] = _Epoch(group_key, group_prk(self._session, epoch, group_key))

    def advance(self, epoch: int, now: float) -> None:
        """Commit an installed epoch: seal under it from now on, and begin to close the ones before it.

        Advancing to the current epoch changes nothing. Raises UnknownEpoch if its key has not come, EpochClosed for an earlier one.
        """
        self._require_live()
        self.expire(now)
        if self._current is not None and epoch <= self._current:
            if epoch < self._current:
                raise EpochClosed
            return
        if epoch not in self._epochs:
            raise UnknownEpoch
        for earlier in [number for number in self._epochs if number < epoch]:
            if earlier == self._current:
                self._epochs[earlier].closed_at = now
            elif self._epochs[earlier].closed_at is None:
                del self._epochs[earlier]  # never committed: nobody sealed under it
        for sealer in self._group_sealers():
            sealer.close()
        self._current, self._current_since = epoch, now

    def ratchet_to(self, epoch: int, now: float) -> bytes:
        """Derive the next epoch's group key from the current one, commit it, and return it (16 bytes).

        Raises UnknownEpoch before the first epoch, EpochClosed for one that is not later, NoSuchStream as `install` does.
        """
        number, current = self._current_epoch()
        if epoch <= number:
            raise EpochClosed
        group_key = ratchet(current.prk)
        self.install(epoch, group_key, now)
        self.advance(epoch, now)
        return group_key

    def due(self, now: float) -> bool:
        """Whether the group key should be changed: it is an hour old, or a group stream of ours has used up half of it."""
        if self._current is None:
            return False
        if now - self._current_since >= MAX_AGE:
            return True
        return any(
            2 * sealer.packets_left <= MAX_PACKETS or 2 * sealer.blocks_left <= MAX_BLOCKS
            for sealer in self._group_sealers()
            if not sealer.closed
        )

    def _group_sealers(self) -> list[Sealer]:
        """Those under the current epoch's key: looked up, not looked for, since peers have one each."""
        return [sealer for channel in RETENTION if (sealer := self._sealers.get((EVERYONE, channel))) is not None]

    # the roster stream

    def set_roster(self, epoch: int, key: bytes) -> None:
        """Seal and open channel 10 under this key from now on; `epoch` stands in its headers. Said again, nothing changes.

        Raises BadLength for a key that is not 16 bytes, NoSuchStream for an epoch that is not 1…2^32-1, EpochClosed after `forget`.
        """
        self._require_live()
        if not 0 < epoch <= _LAST_EPOCH:
            raise NoSuchStream
        if self._roster is not None and (self._roster.epoch, self._roster.key) == (epoch, key):
            return
        self._roster = _Roster(epoch, key, roster_prk(self._session, epoch, key))
        sealer = self._sealers.get((EVERYONE, ROSTER_CHANNEL))
        if sealer is not None:
            sealer.close()

    def drop_roster(self) -> None:
        """The roster stream has been read, or its key is given up."""
        self._roster = None
        sealer = self._sealers.get((EVERYONE, ROSTER_CHANNEL))
        if sealer is not None:
            sealer.close()

    # unicast peers

    def set_key_channel(self, peer: int, prk: bytes) -> None:
        """Open channel 0 with a peer, under the handshake's KEK (after a hand-over: the pair's PRK).

        Raises EpochClosed for a dropped peer.
        """
        held = self._live_peer(peer)
        if held.key_channel != prk:
            held.key_channel = prk
            held.openers.pop(KEY_CHANNEL, None)
            self._close_sealers(peer, only_key_channel=True)

    def set_pair(self, peer: int, prk: bytes) -> None:
        """Open the other unicast channels with a peer, under `schedule.pair_prk`. Raises EpochClosed for a dropped peer."""
        held = self._live_peer(peer)
        if held.pair != prk:
            held.pair = prk
            held.openers = {channel: opener for channel, opener in held.openers.items() if channel == KEY_CHANNEL}
            self._close_sealers(peer, only_key_channel=False)

    def drop_peer(self, peer: int, now: float, grace: float) -> None:
        """A peer left (`LEAVE_GRACE`) or was dismissed (0): seal nothing more to it, open what it sent for `grace` seconds.

        A second call can only shorten the grace. A participant ID that was dropped never gets a key again.
        """
        if self._forgotten or peer in self._gone:
            return
        held = self._peers.setdefault(peer, _Peer())
        closes_at = now + grace
        held.closes_at = closes_at if held.closes_at is None else min(held.closes_at, closes_at)
        self._closing.add(peer)
        for channel in _CHANNELS:
            sealer = self._sealers.get((peer, channel))
            if sealer is not None:
                sealer.close()
        self.expire(now)

    # streams

    def sealer(self, recipient: int, channel: int) -> tuple[int, Sealer]:
        """The epoch to write into the header, and the stream's sealer; its `last` is the last counter used.

        Ask for it for every packet, or at least after every change of keys: a replaced sealer is closed.
        Raises UnknownEpoch (no key yet), EpochClosed (the peer is gone), NoSuchStream.
        """
        self._check_stream(recipient, channel)
        held = self._sealers.get((recipient, channel))
        if channel == ROSTER_CHANNEL:
            self._require_live()
            if self._roster is None:
                raise UnknownEpoch
            epoch, prk = self._roster.epoch, self._roster.prk
            if held is not None and not held.closed:
                return epoch, held
        elif recipient == EVERYONE:
            epoch, current = self._current_epoch()
            if held is not None and not held.closed:
                return epoch, held
            prk = current.prk
        else:
            epoch = 0
            peer = self._peer(recipient)
            if peer.closes_at is not None:
                raise EpochClosed
            if held is not None and not held.closed:
                return epoch, held
            found = peer.prk(channel)
            if found is None:
                raise UnknownEpoch
            prk = found
        fresh = Sealer(stream_keys(prk, self._me, recipient, channel), -1 if held is None else held.last)
        self._sealers[recipient, channel] = fresh
        return epoch, fresh

    def resume(self, recipient: int, channel: int, last: int) -> None:
        """Continue a stream of an earlier process: nothing at or below `last` is ever sealed in it. Never turns back.

        Raises UnknownEpoch, EpochClosed, NoSuchStream, as `sealer` does.
        """
        _, sealer = self.sealer(recipient, channel)
        sealer.last = max(sealer.last, last)

    def opener(self, sender: int, recipient: int, channel: int, epoch: int, now: float, *, keep: bool = True) -> Opener:
        """The opener of one stream under one epoch, from the fields of a clear header.

        `keep`: the sender is on the roster. A stranger's opener is made anew each time, so that strangers cannot fill the memory.
        Raises UnknownEpoch (the packet may wait), EpochClosed (it never opens), NoSuchStream (no packet can look like this).
        """
        self._check_stream(recipient, channel)
        self._require_live()
        if channel == ROSTER_CHANNEL:
            return self._roster_opener(sender, epoch)
        if recipient == EVERYONE:
            return self._group_opener(sender, channel, epoch, now, keep)
        if epoch != 0 or recipient != self._me:
            raise NoSuchStream
        peer = self._peer(sender)
        if peer.closes_at is not None and now >= peer.closes_at:
            raise EpochClosed
        prk = peer.prk(channel)
        if prk is None:
            raise UnknownEpoch if peer.closes_at is None else EpochClosed
        opener = peer.openers.get(channel)
        if opener is None:
            opener = peer.openers[channel] = Opener(stream_keys(prk, sender, recipient, channel))
            self._keep_warm(sender, channel)
        return opener

    def _keep_warm(self, peer: int, channel: int) -> None:
        """An opener takes 1.6 KB and holds nothing that its key does not give again: of a full hall only the newest are kept."""
        self._warm.append((peer, channel))
        if len(self._warm) > MAX_WARM:
            oldest, its = self._warm.popleft()
            if oldest in self._peers:
                self._peers[oldest].openers.pop(its, None)

    def expire(self, now: float) -> None:
        """Erase what is out of its time. Openers and keys of closed epochs and dropped peers go; the rest stays."""
        for number, epoch in list(self._epochs.items()):
            if epoch.closed_at is None:
                continue
            if now >= epoch.closed_at + _LONGEST:
                del self._epochs[number]
            else:
                for sender, channel in [key for key in epoch.openers if now >= epoch.closed_at + RETENTION[key[1]]]:
                    del epoch.openers[sender, channel]
        for name in list(self._closing):
            closes_at = self._peers[name].closes_at
            if closes_at is not None and now >= closes_at:
                del self._peers[name]
                self._closing.discard(name)
                self._gone.add(name)

    def forget(self) -> None:
        """The session is over: drop every key. Everything is closed from now on."""
        self._forgotten = True
        self._epochs.clear()
        self._peers.clear()
        self._closing.clear()
        self._roster = None
        self._warm.clear()
        self._current = None
        for sealer in self._sealers.values():
            sealer.close()
        self._sealers.clear()

    def __repr__(self) -> str:
        return f"Keyring(me={self._me}, current={self._current}, epochs={sorted(self._epochs)}, peers={len(self._peers)})"

    # inside

    def _require_live(self) -> None:
        if self._forgotten:
            raise EpochClosed

    def _current_epoch(self) -> tuple[int, _Epoch]:
        self._require_live()
        if self._current is None:
            raise UnknownEpoch
        return self._current, self._epochs[self._current]

    def _check_stream(self, recipient: int, channel: int) -> None:
        public = channel in RETENTION or channel == ROSTER_CHANNEL
        if channel not in _CHANNELS or (recipient == EVERYONE and not public) or (recipient != EVERYONE and channel == ROSTER_CHANNEL):
            raise NoSuchStream

    def _roster_opener(self, sender: int, epoch: int) -> Opener:
        roster = self._roster
        if roster is None or epoch != roster.epoch:
            raise EpochClosed  # it comes when it is asked for, and is asked for by whoever has the key
        opener = roster.openers.get(sender)
        if opener is None:
            roster.openers.clear()  # there is one writer
            opener = roster.openers[sender] = Opener(stream_keys(roster.prk, sender, EVERYONE, ROSTER_CHANNEL))
        return opener

    def _group_opener(self, sender: int, channel: int, epoch: int, now: float, keep: bool) -> Opener:
        if epoch == 0:
            raise NoSuchStream
        if self._current is None or epoch > self._current:
            raise UnknownEpoch
        held = self._epochs.get(epoch)
        if held is None or (held.closed_at is not None and now >= held.closed_at + RETENTION[channel]):
            raise EpochClosed
        opener = held.openers.get((sender, channel))
        if opener is None:
            opener = Opener(stream_keys(held.prk, sender, EVERYONE, channel))
            if keep:
                held.openers[sender, channel] = opener
        return opener

    def _peer(self, peer: int) -> _Peer:
        self._require_live()
        if peer in self._gone:
            raise EpochClosed
        held = self._peers.get(peer)
        if held is None:
            raise UnknownEpoch
        return held

    def _live_peer(self, peer: int) -> _Peer:
        self._require_live()
        held = self._peers.get(peer)
        if peer in self._gone or (held is not None and held.closes_at is not None):
            raise EpochClosed
        if held is None:
            held = self._peers[peer] = _Peer()
        return held

    def _close_sealers(self, peer: int, *, only_key_channel: bool) -> None:
        for channel in _CHANNELS:
            sealer = self._sealers.get((peer, channel))  # looked up, not looked for: there are as many as members
            if sealer is not None and (channel == KEY_CHANNEL) == only_key_channel:
                sealer.close()
