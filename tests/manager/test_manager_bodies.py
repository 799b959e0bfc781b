"""Whatever a caller sends, it gets an answer that the API promises, and never a defect."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from manager import desk, keys
from manager.api import STATUS, create_app
from manager.house import furnish
from manager.nodes import Nodes
from manager.settings import load_settings
from manager.store import Store
from net.pki import PeerName
from tests.manager.support import MEETING_KEY

NAMES = {kind.name for kind in STATUS} | {"request-too-large", "media-type-unsupported", "not-found", "method-not-allowed"}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(MEETING_KEY) | st.integers(10**8, 10**9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(["title", "meeting_key", "meeting_id", "invite", "participant", "password", "secret", ""])
bodies = st.one_of(
    st.dictionaries(fields, values, max_size=4).map(lambda body: json.dumps(body).encode()),
    values.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=200),
)
segments = st.one_of(st.from_regex(r"[1-9][0-9]{8}", fullmatch=True), st.from_regex(r"[0-9a-f]{16}", fullmatch=True), st.text(max_size=20))
paths = st.one_of(
    st.sampled_from(["/meetings", "/tickets", "/tickets?wait=0", "/health", "/"]),
    st.tuples(st.sampled_from(["/meetings/{}/open", "/sessions/{}/end", "/sessions/{}/revoke", "/tickets?wait={}", "/{}"]), segments).map(
        lambda pair: pair[0].format(pair[1].replace("{", "").replace("}", ""))
    ),
)


class Caller:
    def __init__(self, store: Store) -> None:
        key = store.write_now(keys.add_organizer, "ann", 1.0)
        limits = load_settings(None, stranger_burst=1e9, strangers_burst=1e9)
        self.app = create_app(furnish(store, Nodes(PeerName("home", "manager", "m"), store, time.time), limits, time.time))
        self.key = keys.key_text(key)

    async def call(self, method: str, path: str, body: bytes, kind: str, entitled: bool) -> httpx.Response:
        headers = {"content-type": kind} | ({"authorization": f"Bearer {self.key}"} if entitled else {})
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://manager") as client:
            url = httpx.URL("https://manager/").join(httpx.URL("https://manager").copy_with(raw_path=b"/api/v1" + _raw(path)))
            return await client.request(method, url, content=body, headers=headers)


def _raw(path: str) -> bytes:
    safe = "/?=" if "?" in path else "/"
    return "".join(c if c.isascii() and (c.isalnum() or c in safe) else "".join(f"%{b:02X}" for b in c.encode()) for c in path).encode()


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    store = Store(str(tmp_path_factory.mktemp("store") / "manager.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk, "REFUSED_AFTER", 0.0)
        yield Caller(store)
    store.close()


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["POST", "POST", "GET", "PUT"]),
    paths,
    bodies,
    st.sampled_from(["application/json", "application/json", "text/plain"]),
    st.booleans(),
)
def test_every_answer_is_one_that_is_promised(caller: Caller, method: str, path: str, body: bytes, kind: str, entitled: bool) -> None:
    answer = trio.run(caller.call, method, path, body, kind, entitled)
    if answer.status_code < 400:
        assert answer.headers["content-type"] == "application/json"
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["name"] in NAMES
    assert answer.status_code != 500
