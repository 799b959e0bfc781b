"""The endpoint's side of the manager's API: against a real HTTPS server that answers anything."""

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from endpoint import manager_api
from endpoint.errors import MalformedLink, ManagerRefused, ManagerUnreachable
from endpoint.manager_api import ManagerApi, When
from net.pki import create_ca, enrol
from wire.ids import MeetingId, SessionId

MEETING = MeetingId(123456789)
SHOWN: dict[str, object] = {"meeting_id": MEETING, "invite": "0123456789abcdef", "title": "Weekly"}
LINK = f"https://meet.example/j/{MEETING}/0123456789abcdef"
TICKET: dict[str, Any] = {
    "session": "0123456789abcdef",
    "participant": 7,
    "role": 2,
    "token": "00112233445566ff",
    "secret": "5e" * 32,
    "meeting_id": 123456789,
    "title": "Weekly",
    "meeting_key": "A" * 43,
    "relays": [{"node": "mcs-1", "addresses": [["127.0.0.1", 8200]]}],
    "cluster": "local",
}


@dataclass
class Manager:
    """What the server answers, and what it was asked."""

    site: str
    ca: Path
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    drip: threading.Event | None = None

    def will(self, status: int, answer: object = None, *, raw: bytes | None = None, **headers: str) -> None:
        body = json.dumps(answer).encode() if raw is None else raw
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, body))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    where = tmp_path_factory.mktemp("pki")
    ca = create_ca(where / "ca", "test")
    identity = enrol(where / "ca", where / "manager", "manager", "manager-1", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_path, identity.key_path)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            scripted.asked.append((self.command, self.path, dict(self.headers), self.rfile.read(size)))
            status, headers, body = scripted.answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + (scripted.drip is not None)))
            self.end_headers()
            self.wfile.write(body)
            if scripted.drip is not None:  # the last byte does not come
                scripted.drip.wait(30)

        do_GET = do_POST = do_PUT = answer  # noqa: N815  # the library's names

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # callers that do not trust us, or do not wait

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    scripted = Manager(f"https://127.0.0.1:{server.server_port}", ca)
    yield scripted
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def manager(served: Manager) -> Manager:
    served.answers.clear()
    served.asked.clear()
    return served


async def test_a_ticket_is_what_the_manager_says(manager: Manager) -> None:
    manager.will(200, TICKET)
    async with ManagerApi.connect(manager.site, manager.ca) as api:
        ticket = await api.ticket(MEETING, "0123456789abcdef")
    assert (ticket.session, ticket.participant, ticket.relays[0].addresses) == (SessionId(0x0123456789ABCDEF), 7, (("127.0.0.1", 8200),))
    method, path, headers, body = manager.asked[0]
    assert (method, path, json.loads(body)) == ("POST", "/api/v1/tickets", {"meeting_id": MEETING, "invite": "0123456789abcdef"})
    assert "Authorization" not in headers
    assert "5e5e" not in repr(ticket), "the secret hides"


async def test_the_key_goes_to_this_manager_alone(manager: Manager) -> None:
    manager.will(302, {}, Location="https://127.0.0.1:1/api/v1/meetings")
    async with ManagerApi.connect(manager.site, manager.ca, "the key") as api:
        with pytest.raises(ManagerRefused) as refused:
            await api.schedule("Weekly", bytes(32))
    assert refused.value.name == "http-302"
    assert len(manager.asked) == 1
    assert manager.asked[0][2]["Authorization"] == "Bearer the key"


async def test_a_throttled_stranger_works_instead_of_waiting(manager: Manager) -> None:
    manager.will(429, {"name": "throttled", "title": "Slowly."}, Retry_After="30")
    manager.will(200, {"challenge": "c" * 54, "bits": 8})
    manager.will(200, TICKET)
    async with ManagerApi.connect(manager.site, manager.ca) as api:
        assert (await api.ticket(MEETING, None)).participant == 7
    proof = json.loads(manager.asked[2][3])["proof"]
    assert proof["challenge"] == "c" * 54
    assert sha256(f"{proof['challenge']}:{proof['nonce']}".encode()).digest()[0] == 0
    assert "proof" not in json.loads(manager.asked[0][3])


async def test_a_proof_counts_once_and_an_invitation_needs_none(manager: Manager) -> None:
    refused = (429, {"name": "throttled", "title": "Slowly."})
    async with ManagerApi.connect(manager.site, manager.ca) as api:
        manager.will(*refused)
        manager.will(200, {"challenge": "c", "bits": 1})
        manager.will(*refused)
        with pytest.raises(ManagerRefused):
            await api.ticket(MEETING, None)
        assert len(manager.asked) == 3
        manager.will(*refused)
        with pytest.raises(ManagerRefused):
            await api.ticket(MEETING, "0123456789abcdef")
        assert len(manager.asked) == 4


@pytest.mark.parametrize("made", [{"challenge": "c", "bits": 64}, {"challenge": "c", "bits": -1}, {"challenge": "c" * 65, "bits": 1}, {}, []])
async def test_a_manager_that_asks_for_too_much_work_gets_none(manager: Manager, made: object) -> None:
    manager.will(429, {"name": "throttled", "title": "Slowly."})
    manager.will(200, made)
    async with ManagerApi.connect(manager.site, manager.ca) as api:
        with pytest.raises(ManagerUnreachable):
            await api.ticket(MEETING, None)


async def test_a_time_and_a_repetition_are_the_managers_to_judge(manager: Manager) -> None:
    for _ in range(2):
        manager.will(201, SHOWN | {"link": LINK})
    async with ManagerApi.connect(manager.site, manager.ca, "key") as api:
        await api.schedule("Weekly", bytes(32), When("2030-03-01T15:00", "Europe/Paris", 45, "week", 20))
        await api.schedule("Weekly", bytes(32), When("2030-03-01T15:00", "UTC"))
    often, once = (json.loads(body) for _, _, _, body in manager.asked)
    assert often["repeat"] == {"every": "week", "times": 20}
    assert (often["starts"], often["zone"], often["minutes"]) == ("2030-03-01T15:00", "Europe/Paris", 45)
    assert "repeat" not in once


async def test_scheduling_and_looking_up(manager: Manager) -> None:
    manager.will(200, SHOWN | {"link": LINK})
    manager.will(200, {"meetings": [{"meeting_id": MEETING, "session": "00000000000000ff"}, {"meeting_id": 987654321, "session": None}]})
    manager.will(200, {"meetings": []})
    async with ManagerApi.connect(manager.site + "/", manager.ca, "key") as api:
        made = await api.schedule("Weekly", bytes(32))
        assert (made.meeting, made.invite, made.title, made.site) == (MEETING, "0123456789abcdef", "Weekly", "https://meet.example")
        assert "0123456789abcdef" not in repr(made)
        assert await api.running_session(MEETING) == 0xFF
        assert await api.running_session(MEETING) is None
    assert json.loads(manager.asked[0][3])["meeting_key"] == "A" * 43


async def test_a_refusal_keeps_the_managers_name_and_a_clean_sentence(manager: Manager) -> None:
    manager.will(404, {"name": "meeting-unavailable", "title": "No such\u001b[2J \u202emeeting.\n" + "x" * 900})
    async with ManagerApi.connect(manager.site, manager.ca) as api:
        with pytest.raises(ManagerRefused) as refused:
            await api.ticket(MEETING, None)
    assert refused.value.name == "meeting-unavailable"
    assert refused.value.sentence.startswith("No such[2J meeting. xxx")
    assert len(refused.value.sentence) <= 500


async def test_a_guest_waits_for_a_meeting_that_is_not_open(manager: Manager) -> None:
    manager.will(409, {"name": "not-open-yet", "title": "Not yet."}, Retry_After="0")
    manager.will(429, {"name": "throttled", "title": "Slowly."}, Retry_After="0")
    manager.will(200, TICKET)
    async with ManagerApi.connect(manager.site, manager.ca) as api:
        assert (await api.ticket(MEETING, "0123456789abcdef", patience=30.0)).participant == 7
    assert [path for _, path, _, _ in manager.asked] == ["/api/v1/tickets?wait=20"] * 3
    manager.will(409, {"name": "not-open-yet", "title": "Not yet."})
    async with ManagerApi.connect(manager.site, manager.ca) as api:
        with pytest.raises(ManagerRefused, match="not-open-yet"):
            await api.ticket(MEETING, "0123456789abcdef")


ODD_BODIES = [
    b"",
    b"<html>",
    b"\xff\xfe",
    b"[" * 100_000,
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"{}",
    b'{"meetings": 7, "meeting_id": Infinity, "invite": 0, "title": 0}',
    b'{"meetings": [{"meeting_id": NaN, "session": "x"}], "meeting_id": 1, "invite": "0123456789abcdef", "title": ""}',
    b'{"meetings": [{"meeting_id": 123456789, "session": "x"}], "meeting_id": 123456789, "invite": "../../../../etc/", "title": ""}',
    b'{"meetings": [{"meeting_id": 123456789, "session": []}], "meeting_id": 123456789, "invite": "0123456789ABCDEF", "title": ""}',
    b"{" + b" " * manager_api.MAX_ANSWER + b"}",
]


@pytest.mark.parametrize("body", ODD_BODIES, ids=lambda body: repr(body[:16]))
async def test_any_answer_that_is_none_is_named(manager: Manager, body: bytes) -> None:
    async with ManagerApi.connect(manager.site, manager.ca, "key") as api:
        for call in (
            lambda: api.schedule("t", bytes(32)),
            lambda: api.open(MEETING),
            lambda: api.ticket(MEETING, None),
            lambda: api.running_session(MEETING),
        ):
            manager.will(200, raw=body)
            with pytest.raises(ManagerUnreachable):
                await call()


ODD_LINKS: dict[str, object] = {
    "none": None,
    "number": 7,
    "another-meeting": "https://meet.example/j/987654321/0123456789abcdef",
    "another-invite": f"https://meet.example/j/{MEETING}/ffffffffffffffff",
    "no-invite": f"https://meet.example/j/{MEETING}",
    "in-clear": f"http://meet.example/j/{MEETING}/0123456789abcdef",
    "query": f"https://meet.example?/j/{MEETING}/0123456789abcdef",
    "user": f"https://meet.example@evil.example/j/{MEETING}/0123456789abcdef",
    "escape": f"https://meet.\x1b[2Jexample/j/{MEETING}/0123456789abcdef",
    "bidi": f"https://meet.\u202eexample/j/{MEETING}/0123456789abcdef",
}


async def test_a_key_set_tells_where_the_pages_are(manager: Manager) -> None:
    manager.will(200, SHOWN | {"link": LINK})
    async with ManagerApi.connect(manager.site, manager.ca, "key") as api:
        assert (await api.set_key(MEETING, bytes(32))).site == "https://meet.example"


@pytest.mark.parametrize("link", ODD_LINKS.values(), ids=ODD_LINKS)
async def test_a_link_that_is_another_meetings_or_none_is_not_shown(manager: Manager, link: object) -> None:
    async with ManagerApi.connect(manager.site, manager.ca, "key") as api:
        manager.will(200, SHOWN | {"link": link})
        with pytest.raises(ManagerUnreachable, match="something else than was asked"):
            await api.set_key(MEETING, bytes(32))
        manager.will(201, SHOWN | {"link": link})
        with pytest.raises(ManagerUnreachable, match="something else than was asked"):
            await api.schedule("Weekly", bytes(32))


@pytest.mark.parametrize("body", [*ODD_BODIES[4:9], b'{"name": 7, "title": ["x"]}'], ids=repr)
async def test_any_refusal_that_is_none_is_named_by_its_status(manager: Manager, body: bytes) -> None:
    manager.will(500, raw=body, Retry_After="never")
    async with ManagerApi.connect(manager.site, manager.ca, "key") as api:
        with pytest.raises(ManagerRefused) as refused:
            await api.end(SessionId(1))
    assert (refused.value.name, refused.value.sentence, refused.value.retry_after) == ("http-500", "The manager refused.", 1.0)


async def test_an_answer_that_never_ends_is_given_up(manager: Manager, autojump_clock: trio.testing.MockClock) -> None:
    manager.drip = threading.Event()
    try:
        manager.will(200, TICKET)
        began = trio.current_time()
        async with ManagerApi.connect(manager.site, manager.ca) as api:
            with pytest.raises(ManagerUnreachable, match="does not end"):
                await api.ticket(MEETING, None)
        assert trio.current_time() - began <= 2 * manager_api.CALL_WITHIN
    finally:
        manager.drip.set()
        manager.drip = None


@pytest.mark.parametrize("site", ["https://" + "a" * 64 + ".example", "https://127.0.0.1:1", "https://a b"])
async def test_a_host_that_cannot_be_asked_is_named(manager: Manager, site: str) -> None:
    async with ManagerApi.connect(site, manager.ca) as api:
        with pytest.raises(ManagerUnreachable):
            await api.ticket(MEETING, None)


@pytest.mark.parametrize(
    "site", ["https://[::1", "https://x:y", "https://", "https://x:0", "http://192.0.2.1", "http://localhost.example", "127.0.0.1", "ftp://x"]
)
async def test_what_is_no_https_address_is_named(manager: Manager, site: str) -> None:
    with pytest.raises(MalformedLink):
        async with ManagerApi.connect(site, manager.ca):
            pass


async def test_the_site_has_a_certificate_for_browsers(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link of the site's pages leads there, and not to the port where the cluster's certificate is."""
    cluster = create_ca(tmp_path / "cluster", "test")
    monkeypatch.setenv("SSL_CERT_FILE", str(manager.ca))
    manager_api._webs_opener.cache_clear()
    try:
        manager.will(200, TICKET)
        async with ManagerApi.connect(manager.site, cluster) as api:
            assert (await api.ticket(MEETING, None)).session == SessionId(0x0123456789ABCDEF)
        assert len(manager.asked) == 1
        async with ManagerApi.connect(manager.site.replace("127.0.0.1", "localhost"), cluster, "key") as api:
            with pytest.raises(ManagerUnreachable):  # another host's
                await api.ticket(MEETING, None)
        assert len(manager.asked) == 1
    finally:
        manager_api._webs_opener.cache_clear()


async def test_nobody_elses_authority_counts(manager: Manager, tmp_path: Path) -> None:
    other = create_ca(tmp_path / "other", "test")
    manager.will(200, TICKET)
    async with ManagerApi.connect(manager.site, other) as api:
        with pytest.raises(ManagerUnreachable):
            await api.ticket(MEETING, None)
    assert manager.asked == []
    (tmp_path / "no.crt").write_text("nothing")
    for path in (tmp_path / "no.crt", tmp_path / "absent.crt"):
        with pytest.raises(ManagerUnreachable):
            async with ManagerApi.connect(manager.site, path):
                pass
