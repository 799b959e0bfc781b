"""Organizers and their keys."""

import re
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import keys
from manager.errors import KeyRefused, OrganizerExists, OrganizerUnknown, RequestMalformed
from manager.hidden import Hidden
from manager.store import Store
from tests.manager.support import account_of_key


def test_a_key_names_its_organizer(store: Store) -> None:
    ann, bob = (store.write_now(keys.add_organizer, name, 1.0) for name in ("ann", "bob"))
    assert store.read_now(account_of_key, keys.parse_key_untrusted(keys.key_text(ann))).name == "ann"
    assert store.read_now(account_of_key, bob).name == "bob"
    assert re.fullmatch(r"parley_[A-Za-z0-9_-]{43}", keys.key_text(ann))
    for wrong in (bytes(32), ann.reveal()[:-1] + bytes([ann.reveal()[-1] ^ 1])):
        with pytest.raises(KeyRefused):
            store.read_now(account_of_key, Hidden(wrong))


def test_G21_the_store_holds_the_digest_of_a_key_alone(sqlite_store: Store, tmp_path: Path) -> None:
    key = sqlite_store.write_now(keys.add_organizer, "ann", 1.0)
    sqlite_store.close()
    disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert sha256(key.reveal()).digest() in disk
    assert key.reveal() not in disk
    assert keys.key_text(key).encode() not in disk
    assert keys.key_text(key) not in repr(key)


def test_a_removed_organizer_is_refused_and_may_come_back_with_another_key(store: Store) -> None:
    first = store.write_now(keys.add_organizer, "ann", 1.0)
    with pytest.raises(OrganizerExists):
        store.write_now(keys.add_organizer, "ann", 1.0)
    before = store.read_now(account_of_key, first)
    store.write_now(keys.remove_organizer, "ann")
    with pytest.raises(KeyRefused):
        store.read_now(account_of_key, first)
    with pytest.raises(OrganizerUnknown):
        store.write_now(keys.remove_organizer, "ann")
    assert [(o.name, o.active) for o in store.read_now(keys.list_organizers)] == [("ann", False)]
    second = store.write_now(keys.add_organizer, "ann", 2.0)
    assert store.read_now(account_of_key, second) == before
    with pytest.raises(KeyRefused):
        store.read_now(account_of_key, first)


@pytest.mark.parametrize("name", ["", " ann", "ann ", "a\nb", "a\x00", "x" * 65, "\t"])
def test_a_bad_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(RequestMalformed):
        store.write_now(keys.add_organizer, name, 1.0)


@given(st.one_of(st.text(), st.from_regex(r"parley_[A-Za-z0-9_-]{40,46}", fullmatch=True)))
def test_parsing_a_key_raises_its_one_error(text: str) -> None:
    try:
        key = keys.parse_key_untrusted(text)
    except KeyRefused:
        return
    assert len(key.reveal()) == keys.KEY_BYTES
