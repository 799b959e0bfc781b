"""The state against an oracle that keeps the whole history and looks it up; and that nobody's chat depends on what arrived when."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.signing import SigningKey
from crypto.suite import framed
from endpoint import log
from endpoint.errors import BrokenChain, IllegalEntry, LogError, MalformedEntry
from endpoint.rules import RULES
from endpoint.state import Snapshot, State
from endpoint.succession import accept, yields
from tests.endpoint.session_log_page import PAGE, page
from wire.ids import Channel, ParticipantId, SessionId

SESSION = SessionId(0xA5)
KEY = SigningKey.from_seed(bytes(range(32)))
KEYS = {i: SigningKey.from_seed(bytes((i,)) * 32) for i in range(2, 10)} | {1: KEY}
EXCHANGE = b"x" * 32
OLGA = log.Member(1, 1, "Olga", KEY.public, EXCHANGE)
OPENING = log.Open(SESSION.to_bytes(8, "big"), KEY.public, OLGA, 1)
IDS = st.integers(0, 6)


def member(i: int) -> log.Member:
    return log.Member(i, 2, f"member {i}", KEYS[i].public, EXCHANGE)


def key_of(public: bytes) -> SigningKey:
    return next(key for key in KEYS.values() if key.public == public)


def signed(state: State, fields: log.Fields) -> log.SignedEntry:
    return log.sign_entry(KEY, state.index + 1, state.head, 0, fields)


def opened(*entries: log.Fields) -> State:
    state = State.genesis(SESSION, KEY.public)
    for fields in (OPENING, *entries):
        state.apply(signed(state, fields))
    return state


@dataclass
class Oracle:
    """Every entry that was accepted, and nothing else. Each question replays the history, naively."""

    history: list[Any] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    def at(self, index: int) -> dict[str, Any]:
        """What holds after entry `index`."""
        now: dict[str, Any] = {"members": [], "ever": set(), "presenter": 0, "control": 0, "default": True, "own": {}, "epoch": 0}
        now |= {"locked": False, "knock": False, "ended": False, "names": {}, "successors": [], "organizer": 1, "contested": None}
        now |= {"keys": {1: 1}}  # whose key each participant holds
        for at, entry in enumerate(self.history[: index + 1]):
            gone: list[int] = []
            match entry:
                case log.Open(organizer=organizer, epoch=epoch):
                    now["members"], now["epoch"] = [organizer.id], epoch
                    now["own"][organizer.id] = True
                case log.Admit(members=members, epoch=epoch):
                    now["members"] += [m.id for m in members]
                    now["keys"] |= {m.id: m.id for m in members}
                    now["epoch"] = epoch
                case log.Leave(participants=gone):
                    pass
                case log.Dismiss(participant=participant):
                    gone, now["knock"] = [participant], True
                case log.Presenter(participant=participant):
                    now["presenter"], now["control"] = participant, 0
                case log.Control(participant=participant):
                    now["control"] = participant
                case log.Chat(participant=0, allowed=allowed):
                    now["default"] = allowed
                case log.Chat(participant=participant, allowed=allowed):
                    now["own"][participant] = allowed
                case log.Lock(locked=locked):
                    now["locked"] = locked
                case log.Knock(required=required):
                    now["knock"] = required
                case log.Rename(participant=participant, name=name):
                    now["names"][participant] = name
                case log.EpochEntry(epoch=epoch):
                    now["epoch"] = epoch
                case log.Successors(participants=participants):
                    now["successors"] = [i for i, _ in participants]
                case log.HandOver(participant=participant):
                    former = now["organizer"]
                    if participant not in now["members"]:
                        now["members"][now["members"].index(former)] = participant
                        now["keys"][participant] = now["keys"][former]
                        now["own"].pop(former, None)
                        if now["presenter"] == former:
                            now["presenter"], now["control"] = participant, 0
                        if now["control"] == former:
                            now["control"] = participant
                        now["successors"] = [i for i in now["successors"] if i != former]
                    now["organizer"], now["contested"] = participant, None
                case log.TakeOver(participant=participant, epoch=epoch):
                    now["contested"] = at, now["organizer"]
                    now["organizer"], now["epoch"] = participant, epoch
                case log.End():
                    now["ended"] = True
            if isinstance(entry, log.HandOver | log.TakeOver):
                now["own"][now["organizer"]] = True
                now["successors"] = [i for i in now["successors"] if i != now["organizer"]]
            if isinstance(entry, log.Yield):
                now["contested"] = None
            now["ever"] |= set(now["members"])
            for participant in gone:
                now["members"].remove(participant)
                now["own"].pop(participant, None)
                now["successors"] = [i for i in now["successors"] if i != participant]
                if now["presenter"] == participant:
                    now["presenter"] = now["control"] = 0
                if now["control"] == participant:
                    now["control"] = 0
        return now

    def legal(self, entry: Any) -> bool:
        now = self.at(len(self.history))
        here = now["members"]
        if now["ended"] or isinstance(entry, log.Open) != (not self.history):
            return False
        match entry:
            case log.Open():
                return True
            case log.Admit(members=members, epoch=epoch):
                ids = [m.id for m in members]
                fresh = len(set(ids)) == len(ids) and not set(ids) & now["ever"]
                return fresh and bool(ids or entry.others) and epoch == now["epoch"] + 1
            case log.EpochEntry(epoch=epoch):
                return bool(epoch == now["epoch"] + 1)
            case log.Leave(participants=gone):
                return now["organizer"] not in gone and len(set(gone)) == len(gone) and set(gone) <= set(here)
            case log.Dismiss(participant=participant):
                return participant != now["organizer"] and participant in here
            case log.Presenter(participant=participant) | log.Chat(participant=participant):
                return participant == 0 or participant in here
            case log.Control(participant=0):
                return True
            case log.Control(participant=participant):
                return participant in here and now["presenter"] not in (0, participant)
            case log.Rename(participant=participant):
                return participant in here
            case log.Successors(participants=participants):
                ids = [i for i, _ in participants]
                theirs = all(key == KEYS[now["keys"][i]].public for i, key in participants if i in here)
                return len(set(ids)) == len(ids) and set(ids) <= set(here) - {now["organizer"]} and theirs
            case log.HandOver(participant=participant, epoch=epoch):
                owner = now["keys"][participant] if participant in here else now["keys"][now["organizer"]]
                known = participant in here or participant not in now["ever"]
                place = framed(b"parley accept 1", SESSION.to_bytes(8, "big"), self.hashes[-1], participant.to_bytes(4, "big"),
                               entry.signing_key, entry.exchange_key, epoch.to_bytes(4, "big"))  # fmt: skip
                accepted = signs(KEYS[owner], place, entry.accept) and entry.signing_key == KEYS[owner].public
                return known and participant != now["organizer"] and accepted and epoch == now["epoch"] + 1
            case log.TakeOver(participant=participant, epoch=epoch):
                return participant in now["successors"] and epoch == ((now["epoch"] >> 24) + 1) << 24
            case log.Yield():
                if now["contested"] is None:
                    return False
                at, former = now["contested"]
                place = framed(b"parley yield 1", SESSION.to_bytes(8, "big"), self.hashes[at])
                return entry.take_over == self.hashes[at] and signs(KEYS[now["keys"][former]], place, entry.signature)
        return True

    def chats(self, now: dict[str, Any], participant: int) -> bool:
        return participant in now["members"] and bool(now["own"].get(participant, now["default"]))

    def removed(self, entry: Any) -> list[int]:
        match entry:
            case log.Leave(participants=gone):
                return list(gone)
            case log.Dismiss(participant=participant):
                return [participant]
        return []

    def counts(self, sender: int, channel: int, index: int, counter: int) -> bool:
        """Whether a packet counts, by the sentence of docs/protocol.md: a right at the index, and every cut of a later entry."""
        then, now = self.at(index), self.at(len(self.history))
        if sender not in then["members"]:
            return False
        if channel == Channel.CHAT and not self.chats(then, sender):
            return False
        if channel == Channel.SCREEN and not sender == then["presenter"] == now["presenter"]:
            return False
        for later, entry in enumerate(self.history):
            if later <= index:
                continue
            if (isinstance(entry, log.Leave) and sender in entry.participants) or (
                isinstance(entry, log.Dismiss) and sender == entry.participant
            ):
                ended = channel in (Channel.CHAT, Channel.FILE)
            elif isinstance(entry, log.Chat) and not entry.allowed and channel == Channel.CHAT:
                before = self.at(later - 1)
                ended = sender in before["members"] and (entry.participant == sender or (not entry.participant and sender not in before["own"]))
            else:
                continue
            if ended:
                cut = next((c for p, ch, c in reversed(entry.cuts) if (p, ch) == (sender, channel)), -1)
                if counter > cut:
                    return False
        return True


def signs(key: SigningKey, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


CUTS = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([2, 8]), st.integers(-1, 8)), max_size=4)


Wish = Callable[[State], log.Fields]


def hand_over(participant: int, ahead: int, forged: bool) -> Wish:
    """To a member; or, by an ID that is new, to the organizer itself."""

    def wish(state: State) -> log.Fields:
        known = state.members.get(ParticipantId(participant))
        key = key_of(known.signing_key if known else state.organizer_key)
        epoch = state.epoch + ahead
        signature = accept(state, participant, key, EXCHANGE, bytes(32) if forged else state.head, epoch)
        return log.HandOver(participant, key.public, EXCHANGE, signature, epoch)

    return wish


def take_over(participant: int, term: int) -> Wish:
    return lambda state: log.TakeOver(participant, ((state.epoch >> 24) + term) << 24)


def yielding(forged: bool) -> Wish:
    def wish(state: State) -> log.Fields:
        if not state.contested:
            return log.Yield(bytes(32), bytes(64))
        key = KEYS[3] if forged else key_of(state.contested[:32])
        return log.Yield(state.contested[32:], yields(SESSION, key, state.contested[32:]))

    return wish


def successors(ids: list[int], wrong: bool) -> Wish:
    def wish(state: State) -> log.Fields:
        keys = {i: member.signing_key for i, member in state.members.items()}
        return log.Successors([(i, bytes(32) if wrong else keys.get(ParticipantId(i), bytes(32))) for i in ids])

    return wish


def entries() -> st.SearchStrategy[Wish]:
    """Entries of every kind, legal and illegal; those that name an epoch get the present one."""
    plain: list[st.SearchStrategy[Any]] = [
        st.just(OPENING),
        st.builds(log.Leave, st.lists(st.integers(1, 6), min_size=1, max_size=3), CUTS),
        st.builds(log.Dismiss, st.integers(1, 6), CUTS),
        st.builds(log.Presenter, IDS),
        st.builds(log.Control, IDS),
        st.builds(log.Chat, IDS, st.booleans(), CUTS),
        st.builds(log.Chat, IDS, st.booleans(), CUTS),
        st.builds(log.Lock, st.booleans()),
        st.builds(log.Knock, st.booleans()),
        st.builds(log.Rename, st.integers(1, 6), st.just("renamed")),
    ]
    chair: list[st.SearchStrategy[Wish]] = [
        st.builds(hand_over, st.integers(1, 9), st.sampled_from([1, 1, 1, 2]), st.sampled_from([False, False, True])),
        st.builds(successors, st.lists(st.integers(1, 6), max_size=2), st.sampled_from([False, False, False, True])),
        st.builds(take_over, st.integers(1, 6), st.sampled_from([1, 1, 1, 0])),
        st.builds(yielding, st.booleans()),
    ]
    admit = st.builds(
        lambda ids, ahead: lambda state: log.Admit([member(i) for i in ids], state.epoch + ahead),
        st.lists(st.integers(1, 6), max_size=3),
        st.sampled_from([1, 1, 1, 0, 2, 1 << 24]),
    )
    rekey = st.builds(lambda ahead: lambda state: log.EpochEntry(state.epoch + ahead, bytes(32)), st.sampled_from([1, 1, 0]))
    return st.one_of(admit, admit, rekey, st.one_of(*plain).map(lambda fields: lambda state: fields), st.one_of(*chair), st.one_of(*chair))


def same(state: State, oracle: Oracle) -> None:
    now = oracle.at(len(oracle.history))
    assert sorted(state.members) == sorted(now["members"])
    assert state.ever == now["ever"]
    assert (state.presenter, state.control, state.epoch) == (now["presenter"], now["control"], now["epoch"])
    assert state.organizer == now["organizer"]
    assert state.organizer_key == KEYS[now["keys"][state.organizer]].public
    assert bool(state.contested) == (now["contested"] is not None)
    assert (state.locked, state.knock, state.ended) == (now["locked"], now["knock"], now["ended"])
    assert (state.chat_default, state.chat, state.successors) == (now["default"], now["own"], now["successors"])
    for participant, name in now["names"].items():
        if participant in now["members"]:
            assert state.members[ParticipantId(participant)].name == name


@given(st.lists(entries(), max_size=25), st.booleans())
@settings(max_examples=150, derandomize=True)
def test_the_state_follows_the_oracle_and_a_refused_entry_changes_nothing(wishes: list[Wish], end: bool) -> None:
    state = opened()
    oracle = Oracle([OPENING], [state.head])
    last: list[Wish] = [lambda _: log.End(), lambda _: log.Lock(True)]
    for wish in [*wishes, *(last if end else [])]:
        fields = wish(state)
        before = msgspec.msgpack.encode(state.snapshot()), list(state.heads), state.ended
        if oracle.legal(fields):
            state.apply(signed(state, fields))
            oracle.history.append(fields)
            oracle.hashes.append(state.head)
        else:
            with pytest.raises(IllegalEntry):
                state.apply(signed(state, fields))
            assert before == (msgspec.msgpack.encode(state.snapshot()), list(state.heads), state.ended)
        same(state, oracle)


QUESTIONS = [(i, channel, counter) for i in range(1, 7) for channel in (Channel.CHAT, Channel.SCREEN, Channel.FILE) for counter in (0, 3, 9)]


@given(st.lists(entries(), max_size=20))
@settings(max_examples=100, derandomize=True)
def test_G06_rights_at_an_index_follow_the_oracle(wishes: list[Wish]) -> None:
    state = opened()
    oracle = Oracle([OPENING], [state.head])
    for wish in wishes:
        fields = wish(state)
        if oracle.legal(fields):
            state.apply(signed(state, fields))
            oracle.history.append(fields)
            oracle.hashes.append(state.head)
    for index in range(state.index + 1):
        for sender, channel, counter in QUESTIONS:
            asked = ParticipantId(sender), channel, index, counter
            assert state.may_send(*asked) == oracle.counts(sender, channel, index, counter), (asked, oracle.history)


@given(st.lists(entries(), max_size=14), st.lists(entries(), max_size=8))
@settings(max_examples=100, derandomize=True)
def test_a_newcomer_judges_what_comes_as_the_others_do(before: list[Wish], after: list[Wish]) -> None:
    """A packet that comes after the snapshot has a counter beyond every cut so far; whatever index it names, it counts at all or at none."""
    state = opened()

    def attempt(wish: Wish, *states: State) -> None:
        entry = signed(state, wish(state))
        for each in states:
            try:
                each.apply(entry)
            except IllegalEntry:
                assert each.refuses(entry), "both refuse, or none"

    for wish in before:
        attempt(wish, state)
    snapshot = msgspec.msgpack.decode(msgspec.msgpack.encode(state.snapshot()), type=Snapshot)
    newcomer = State.from_snapshot(SESSION, KEY.public, snapshot)
    assert newcomer.snapshot() == state.snapshot()
    for wish in after:
        attempt(wish, state, newcomer)
    assert (newcomer.index, newcomer.head) == (state.index, state.head)
    assert newcomer.snapshot() == state.snapshot()
    for index in range(state.index + 1):
        for sender in state.members:
            for channel in (Channel.CHAT, Channel.FILE, Channel.SCREEN):
                if channel == Channel.SCREEN and index < snapshot.index:
                    continue  # a screen before the snapshot chains to nothing that a newcomer has
                asked = sender, channel, index, 9
                assert state.may_send(*asked) == newcomer.may_send(*asked), asked


def test_G06_a_newcomer_does_not_hear_what_was_said_in_a_silence_before_its_time() -> None:
    """Ann was silenced at 2 and may chat again since 3; a modified client names 1 or 2 in a line that arrives after the snapshot."""
    state = opened(
        log.Admit([member(2), member(3)], 2),
        log.Chat(2, False, [(2, 2, 4)]),
        log.Chat(2, True, []),
        log.Chat(0, False, []),
        log.Chat(0, True, []),
    )
    newcomer = State.from_snapshot(SESSION, KEY.public, state.snapshot())
    for view in (state, newcomer):
        heard = {i: [index for index in range(6) if view.may_send(ParticipantId(i), Channel.CHAT, index, 9)] for i in (1, 2, 3)}
        assert heard == {1: [0, 1, 2, 3, 4, 5], 2: [3, 4, 5], 3: [5]}


def test_nobody_is_a_member_with_a_key_that_protects_nothing() -> None:
    """What an organizer to come says to each member would end at it."""
    state = opened(log.Admit([member(2)], 2))
    weak = (1 + 2**255).to_bytes(32, "little")
    admit = log.Admit([member(3), msgspec.structs.replace(member(4), exchange_key=weak)], 3)
    signature = accept(state, 9, KEY, weak, state.head, 3)
    for fields in (admit, log.HandOver(9, KEY.public, weak, signature, 3)):
        assert "secret" in state.refuses(log.sign_entry(KEY, state.index + 1, state.head, 0, fields))
    begin = log.Open(SESSION.to_bytes(8, "big"), KEY.public, msgspec.structs.replace(OLGA, exchange_key=weak), 1)
    genesis = State.genesis(SESSION, KEY.public)
    assert "secret" in genesis.refuses(log.sign_entry(KEY, 0, genesis.head, 0, begin))


def test_an_entry_out_of_its_place_is_refused_and_changes_nothing() -> None:
    state = opened(log.Admit([member(2)], 2))
    first, second = signed(state, log.Lock(True)), None
    state.apply(first)
    second = signed(state, log.Lock(False))
    for entry in (
        first,  # again
        log.sign_entry(KEY, state.index + 2, second.hash, 0, log.Lock(True)),  # one left out
        log.sign_entry(KEY, state.index + 1, first.entry.previous, 0, log.Lock(False)),  # another history
        log.sign_entry(KEY, state.index + 1, bytes(32), 0, log.Lock(False)),
    ):
        head = state.head
        with pytest.raises(BrokenChain):
            state.apply(entry)
        assert (state.head, state.locked) == (head, True)
    state.apply(second)
    assert not state.locked


def test_every_kind_has_a_rule_that_says_who_causes_it_and_what_it_does() -> None:
    assert set(RULES) == set(get_args(log.Fields))
    assert all(rule.causes and rule.effect.__doc__ for rule in RULES.values())
    assert len({rule.kind for rule in RULES.values()}) == len(RULES)


def test_the_page_about_the_log_is_drawn_from_the_table() -> None:
    assert PAGE.read_text() == page(), "run tests/endpoint/session_log_page.py"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("another meeting key", {"meeting_key": bytes(32)}),
        ("no organizer", {"organizer": 9}),
        ("a member twice", {"members": [OLGA, OLGA]}),
        ("since of strangers", {"since": [(9, 0, 0)]}),
        ("since later than the snapshot", {"since": [(1, 0, 99), (2, 1, 1)]}),
        ("a stranger presents", {"presenter": 9}),
        ("a stranger has control", {"control": 9}),
        ("a stranger may chat", {"chat": [(9, True)]}),
        ("a stranger may take over", {"successors": [9]}),
        ("a contest of half a key", {"contested": bytes(32)}),
        ("a key that protects nothing", {"members": [OLGA, msgspec.structs.replace(member(2), exchange_key=bytes(32))]}),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(name: str, change: dict[str, Any]) -> None:
    snapshot = opened(log.Admit([member(2)], 2)).snapshot()
    with pytest.raises(MalformedEntry):
        State.from_snapshot(SESSION, KEY.public, msgspec.structs.replace(snapshot, **change))
    assert issubclass(MalformedEntry, LogError)


def test_silencing_everybody_leaves_the_organizer_its_word() -> None:
    state = opened(log.Admit([member(2)], 2), log.Chat(0, False, []))
    assert state.may_send(ParticipantId(1), Channel.CHAT, state.index, 5)
    assert not state.may_send(ParticipantId(2), Channel.CHAT, state.index, 5)
    state.apply(signed(state, log.Admit([member(3)], 3)))
    assert not state.may_send(ParticipantId(3), Channel.CHAT, state.index, 0), "who comes later is silent too"
