"""What strangers and mistyping people send: nothing breaks, nothing typed is lost, no secret comes back or is logged."""

import gzip
import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import trio

from manager.accounts import AccountRole, change
from manager.calendar import Repeat, check_schedule
from manager.site.forms import SECRETS
from manager.site.pages import TEMPLATES
from manager.site.web import inner_path_untrusted
from tests.manager.site.browser import PASSWORD, Served

HOSTILE = {
    "empty": "",
    "markup": "<script>alert(1)</script>\"'`",
    "nul": "a\x00b",
    "long": "x" * 3_000,
    "bidi": "\u202eevil\u2066",
    "spaces": " \t\r\n ",
    "number": "99999999999999999999999",
    "negative": "-1",
    "template": "{{ 7*7 }} {% raw %} %(x)s {0}",
    "scripts": "Ωμέγα ‏עברית‏ 中文 🧑🏽‍🚀",
    "sql": "' OR 1=1; --",
}
SECRET = ("password", "current", "new", "code")


@pytest.fixture
async def visitor(site: Served) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"origin": site.address, "sec-fetch-site": "same-origin"}
    async with httpx.AsyncClient(base_url=site.address, headers=headers, trust_env=False, timeout=60) as http:
        yield http


@pytest.fixture
async def ada(site: Served, visitor: httpx.AsyncClient) -> httpx.AsyncClient:
    site.add("Ada Admin", "ada@example.org", AccountRole.INTERNAL_ADMIN)
    visitor.cookies.set("parley", site.sign_in("ada@example.org"))
    return visitor


def fields(page: str, action: str) -> dict[str, str]:
    """Names of a form's fields with their kinds, as a browser would find them."""
    form = next(text for text in page.split("<form ")[1:] if f'action="{action}"' in text).partition("</form>")[0]
    found = {}
    for tag in re.findall(r"<(?:input|select|textarea)\b[^>]*>", form):
        name = re.search(r'name="([^"]+)"', tag)
        kind = re.search(r'type="([^"]+)"', tag)
        if name:
            found[name[1]] = kind[1] if kind else tag.split()[0][1:]
    return found


STRANGERS = ["/sign-in", "/welcome", "/confirm", "/forgot", "/reset"]
MEMBERS = [
    ("/account", "/account"),
    ("/account", "/account/email"),
    ("/account/password", "/account/password"),
    ("/account/keys", "/account/keys"),
    ("/account/prove", "/account/prove"),
    ("/meetings/new", "/meetings/new"),
    ("/admin/invitations", "/admin/invitations"),
    ("/admin/policy", "/admin/policy"),
    ("/admin/users/1", "/admin/users/1"),
]


async def try_everything(http: httpx.AsyncClient, page: str, action: str) -> None:
    known = fields((await http.get(page)).text, action)
    assert known, page
    for name, text in HOSTILE.items():
        sent = {field: text for field in known if field not in ("next", "zone" if action in STRANGERS else "")}
        answer = await http.post(action, data=sent)
        assert answer.status_code in (200, 303, 422, 429), (action, name, answer.status_code)
        if answer.status_code != 422:
            continue
        assert 'role="alert"' in answer.text, "what is wrong is said aloud"
        shown = answer.text
        assert "<script>alert" not in shown
        for field, kind in known.items():
            if kind in ("text", "email", "search") and field not in SECRET and name == "scripts":
                assert HOSTILE["scripts"] in shown, f"{action}: what was typed into {field} is lost"
            if kind == "password":
                assert f'name="{field}" type="password" required' in shown.replace("\n", " ") or 'value="' not in shown


async def test_every_form_takes_anything(visitor: httpx.AsyncClient, ada: httpx.AsyncClient) -> None:
    for page, action in MEMBERS:
        await try_everything(ada, page, action)
    visitor.cookies.clear()
    for path in STRANGERS:
        await try_everything(visitor, path, path)


async def test_a_refused_meeting_says_what_is_wrong_beside_each_field(ada: httpx.AsyncClient) -> None:
    typed = {
        "title": " ",
        "timed": "yes",
        "date": "2026-02-30",
        "time": "25:00",
        "minutes": "0",
        "zone": "Mars/Olympus",
        "every": "week",
        "times": "1",
    }
    answer = await ada.post("/meetings/new", data=typed)
    assert answer.status_code == 422
    wrong = set(re.findall(r'id="(\w+)-error"', answer.text))
    assert wrong == {"minutes", "times"}
    typed |= {"minutes": "60", "times": "3"}
    answer = await ada.post("/meetings/new", data=typed)
    assert set(re.findall(r'id="(\w+)-error"', answer.text)) == {"date", "zone"}
    typed |= {"date": "2026-02-27", "time": "10:00", "zone": "Europe/Paris"}
    answer = await ada.post("/meetings/new", data=typed)
    assert set(re.findall(r'id="(\w+)-error"', answer.text)) == {"title"}
    assert 'value="2026-02-27"' in answer.text


async def test_what_a_form_does_not_offer_it_does_not_change(site: Served, visitor: httpx.AsyncClient) -> None:
    """Programs may ask for more than the page: every third week, and a feature off that the account has lost meanwhile."""
    site.add("Olga", "olga@example.org")
    cookie = site.sign_in("olga@example.org")
    visitor.cookies.set("parley", cookie)
    caller = await site.house.entrance.caller_of_cookie(cookie, "127.0.0.1")
    when = check_schedule("2030-03-01T15:00", "Europe/Paris", 60, Repeat("week", 5, 3))
    number = (await site.house.diary.schedule(caller, "Tides", when=when, features_off=["chat", "files"])).number
    site.store.write_now(lambda db: change(db, caller.account.id, features_off=["chat"]))
    path = f"/meetings/{number}"
    assert "Every 3 weeks, 5 times" in (await visitor.get(path)).text
    page = (await visitor.get(f"{path}/edit")).text
    assert '<option value="kept" selected>Every 3 weeks</option>' in page
    sent = {"title": "Ebbs", "timed": "yes", "date": "2030-03-01", "time": "15:00", "minutes": "60", "zone": "Europe/Paris"}
    features = ["whisper", "screen", "remote-control", "voice", "recording"]
    answer = await visitor.post(f"{path}/edit", data=sent | {"every": "kept", "times": "6", "features": features})
    assert answer.status_code == 303, answer.text
    meeting = await site.house.diary.meeting(caller, number)
    assert (meeting.title, meeting.schedule.repeat) == ("Ebbs", Repeat("week", 6, 3))
    assert meeting.features_off == {"chat", "files"}
    assert 'id="every-error"' in (await visitor.post("/meetings/new", data=sent | {"every": "kept", "times": "6"})).text


async def test_a_key_lives_as_long_as_was_chosen(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/account/keys", data={"name": "zither", "scopes": "host", "days": "for ever"})
    assert answer.status_code == 422
    assert 'id="days-error"' in answer.text
    assert "parley_" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[", "sec-fetch-site": "same-origin"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({}, 403),
        ({"sec-fetch-site": "same-origin"}, 303),
    ],
    ids=["foreign", "hidden", "broken", "sibling", "silent", "ours"],
)
async def test_a_form_counts_only_from_a_page_of_this_site(site: Served, headers: dict[str, str], status: int) -> None:
    async with httpx.AsyncClient(base_url=site.address, trust_env=False) as http:
        answer = await http.post("/sign-out", headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a=b&" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"f%d=1" % i for i in range(300)), "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe=\x80", "application/x-www-form-urlencoded", 400),
        (b"{}", "application/json", 400),
        (b"email=%FF%FE%80&password=%C3%28", "application/x-www-form-urlencoded", 422),
    ],
    ids=["too-large", "too-many-fields", "no-ascii", "json", "no-utf8"],
)
async def test_what_is_no_form_is_refused_by_name(visitor: httpx.AsyncClient, body: bytes, kind: str, status: int) -> None:
    answer = await visitor.post("/sign-in", content=body, headers={"content-type": kind})
    assert answer.status_code == status


async def test_pages_come_with_every_guard(visitor: httpx.AsyncClient) -> None:
    for path in ("/", "/sign-in", "/j/123456789", "/nothing", "/static/nothing.js"):
        headers = (await visitor.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy, "foreign code"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


async def test_a_page_with_all_that_it_loads_is_light(visitor: httpx.AsyncClient, ada: httpx.AsyncClient) -> None:
    """150 KB, packed as a browser gets it."""
    for path in ("/meetings/new", "/account/factors", "/admin/policy", "/join", "/account"):
        page = await ada.get(path)
        size = len(page.content)
        known = set(re.findall(r"/static/[\w.-]+", page.text))
        waiting = set(known)
        while waiting:
            one = waiting.pop()
            answer = await ada.get(one)
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            size += len(gzip.compress(answer.content, 9))
            found = {f"/static/{name}" for name in re.findall(r'"\./([\w.-]+\.(?:js|txt|svg))"', answer.text)} - known
            known |= found
            waiting |= found
        assert size <= 150_000, f"{path}: {size}"


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nset-cookie: x=y", "/ä", "javascript:alert(1)"]
)
def test_one_goes_on_to_pages_of_this_site_alone(path: str) -> None:
    assert inner_path_untrusted(path) == "/"
    assert inner_path_untrusted("/admin/users?search=a") == "/admin/users?search=a"


async def test_G18_a_stranger_cannot_tell_a_meeting_from_none(site: Served, visitor: httpx.AsyncClient) -> None:
    site.add("Olga", "olga@example.org")
    caller = await site.house.entrance.caller_of_cookie(site.sign_in("olga@example.org"), "127.0.0.1")
    meeting = await site.house.diary.schedule(caller, "Secret harbour")
    absent = 999_999_999 if meeting.number != 999_999_999 else 999_999_998
    real, other = [(await visitor.get(f"/j/{number}")).text for number in (meeting.number, absent)]
    shape = re.compile(rf"{meeting.number}|{absent}|\d{{3}}-\d{{3}}-\d{{3}}")
    assert shape.sub("", real) == shape.sub("", other)
    for path in (f"/meetings/{meeting.number}", f"/meetings/{meeting.number}/invitation.ics", "/admin/users", "/account"):
        answer = await visitor.get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")


async def test_G14_pages_of_administrators_are_there_for_nobody_else(site: Served, visitor: httpx.AsyncClient) -> None:
    site.add("Olga", "olga@example.org")
    site.add("Eva", "eva@example.org", AccountRole.EXTERNAL_ADMIN)
    visitor.cookies.set("parley", site.sign_in("olga@example.org"))
    for path in ("/admin/users", "/admin/reports.csv", "/admin/policy", "/admin/audit", "/admin/nodes", "/admin/users/1"):
        assert (await visitor.get(path)).status_code == 403
        assert (await visitor.post(path, data={})).status_code in (403, 405)
    visitor.cookies.clear()
    visitor.cookies.set("parley", site.sign_in("eva@example.org"))
    assert (await visitor.get("/admin/users")).status_code == 200
    for path in ("/admin/policy", "/admin/audit", "/admin/nodes"):
        assert (await visitor.get(path)).status_code == 403


async def test_who_is_lost_stays_signed_in(site: Served, ada: httpx.AsyncClient) -> None:
    site.add("Zoé", "zoe@example.org")
    site.store.write_now(lambda db: change(db, 2, language="fr"))
    ada.cookies.clear()
    assert 'href="/sign-in"' in (await ada.get("/nowhere")).text
    ada.cookies.set("parley", site.sign_in("zoe@example.org"))
    answer = await ada.get("/nowhere", headers={"accept-language": "en"})
    assert answer.status_code == 404
    assert "Zoé" in answer.text
    assert 'href="/sign-in"' not in answer.text
    assert '<html lang="fr">' in answer.text


async def test_a_new_password_removes_api_keys_unless_they_are_kept(site: Served, visitor: httpx.AsyncClient) -> None:
    site.add("Olga", "olga@example.org")
    visitor.cookies.set("parley", site.sign_in("olga@example.org"))
    old, without = PASSWORD, (await visitor.get("/account/password")).text
    assert 'type="hidden" name="drop_keys" value="yes"' in without  # there is nothing to decide yet
    await visitor.post("/account/keys", data={"name": "zither", "scopes": "host"})
    for new, ticked, left in (("Another-9-lantern", {}, True), ("Another-9-otter", {"drop_keys": "yes"}, False)):
        assert 'id="drop_keys-yes"' in (await visitor.get("/account/password")).text
        answer = await visitor.post("/account/password", data={"current": old, "new": new} | ticked)
        assert answer.status_code == 303, answer.text
        cookie, old = answer.cookies["parley"], new
        visitor.cookies.clear()
        visitor.cookies.set("parley", cookie)
        assert ("zither" in (await visitor.get("/account/keys")).text) is left


async def test_a_new_address_is_confirmed_by_who_is_signed_in(site: Served, visitor: httpx.AsyncClient) -> None:
    site.add("Olga", "olga@example.org")
    visitor.cookies.set("parley", site.sign_in("olga@example.org"))
    assert (await visitor.post("/account/email", data={"email": "olga@example.net"})).status_code == 303
    token = (await trio.to_thread.run_sync(site.link_to, "olga@example.net")).partition("#")[2]
    cookies, visitor.cookies = visitor.cookies, httpx.Cookies()
    refused = await visitor.post("/confirm", data={"token": token})
    assert refused.status_code == 422
    assert "Sign in to the account" in refused.text
    visitor.cookies = cookies
    assert (await visitor.post("/confirm", data={"token": token})).status_code == 303
    assert "olga@example.net" in (await visitor.get("/account")).text


async def test_no_secret_is_logged(site: Served, visitor: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Canaries in every field that may hold a secret."""
    link = site.one_time_link("ada@example.org", AccountRole.INTERNAL_ADMIN)
    token = link.partition("#")[2]
    answer = await visitor.post("/welcome", data={"token": token, "name": "Ada", "password": PASSWORD})
    assert answer.status_code == 303
    cookie = visitor.cookies["parley"]
    await visitor.post("/account/password", data={"current": PASSWORD, "new": "Canary-77-lantern"})
    made = await visitor.post("/account/keys", data={"name": "key", "scopes": "host"})
    key = re.search(r"parley_[\w-]{43}", made.text)
    assert key
    said: Any = capsys.readouterr()
    for secret in (token, PASSWORD, cookie, visitor.cookies["parley"], "Canary-77-lantern", key[0]):
        assert secret not in said.out + said.err
        assert secret.encode() not in (tmp_path / "manager.db").read_bytes() + (tmp_path / "manager.db-wal").read_bytes()


def carried(page: str) -> list[tuple[str, str]]:
    """The hidden fields of the page that says that the sign-in has ended, as a browser would send them."""
    form = page.partition('<form method="post" action="')[2].partition("</form>")[0]
    return [
        (html.unescape(name), html.unescape(text)) for name, text in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form)
    ]


def encoded(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    return {"content": urlencode(pairs), "headers": {"content-type": "application/x-www-form-urlencoded"}}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_sent_after_the_sign_in_has_ended_is_kept(site: Served, visitor: httpx.AsyncClient, text: str) -> None:
    sent = [("title", f"Harbour {text}"), ("timed", ""), ("features", "chat"), ("features", "screen"), (text, text)]
    answer = await visitor.post("/meetings/new", **encoded(sent))
    assert (answer.status_code, answer.headers["cache-control"]) == (403, "no-store")
    assert "<script>alert" not in answer.text
    assert 'action="/meetings/new"' in answer.text
    assert re.search(r'<a [^>]*href="/sign-in" target="_blank" rel="noopener"', answer.text)
    assert carried(answer.text) == [(name, value.replace("\r\n", "\n")) for name, value in sent]
    again = await visitor.post("/meetings/new", **encoded(carried(answer.text)))
    assert carried(again.text) == carried(answer.text), "who sends it too early loses nothing either"


async def test_what_was_kept_is_done_when_it_is_sent_again_from_here(site: Served, visitor: httpx.AsyncClient) -> None:
    site.add("Olga", "olga@example.org")
    kept = carried((await visitor.post("/meetings/new", data={"title": "Harbour & “quay”", "timed": ""})).text)
    visitor.cookies.set("parley", site.sign_in("olga@example.org"))
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert (await visitor.post("/meetings/new", data=dict(kept), headers=foreign)).status_code == 403
    assert "Harbour" not in (await visitor.get("/meetings")).text
    done = await visitor.post("/meetings/new", data=dict(kept))
    assert (done.status_code, done.headers["location"].rpartition("/")[0]) == (303, "/meetings")
    assert "Harbour &amp; “quay”" in (await visitor.get("/meetings")).text


async def test_a_foreign_form_is_not_kept(visitor: httpx.AsyncClient) -> None:
    answer = await visitor.post(
        "/meetings/new", data={"title": "Harbour"}, headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    )
    assert answer.status_code == 403
    assert "Harbour" not in answer.text


async def test_a_sign_in_by_half_keeps_what_was_typed(site: Served, visitor: httpx.AsyncClient) -> None:
    site.add("Olga", "olga@example.org")
    site.store.write_now(lambda db: change(db, 1, factor_required=True))
    visitor.cookies.set("parley", site.sign_in("olga@example.org"))
    assert (await visitor.get("/meetings/new")).headers["location"] == "/account/factors"
    answer = await visitor.post("/meetings/new", data={"title": "Harbour", "timed": ""})
    assert (answer.status_code, dict(carried(answer.text))["title"]) == (403, "Harbour")


async def test_no_secret_is_kept_in_the_page(visitor: httpx.AsyncClient) -> None:
    secrets = {name: f"hidden-{name}" for name in SECRETS}
    for path in ("/account/password", "/account/prove", "/account/factors/passkeys"):
        answer = await visitor.post(path, data=secrets | {"name": "My laptop"})
        assert (answer.status_code, carried(answer.text)) == (403, [("name", "My laptop")])
        assert "hidden-" not in answer.text
        alone = await visitor.post(path, data=secrets)
        assert (alone.status_code, alone.headers["location"]) == (303, "/sign-in"), "nothing is left to keep"


async def test_what_needs_a_fresh_proof_is_kept_until_it_is_given(site: Served, visitor: httpx.AsyncClient) -> None:
    site.add("Olga", "olga@example.org")
    visitor.cookies.set("parley", site.sign_in("olga@example.org"))
    site.clock.ahead += 3600
    forms = {
        "/account/email": [("email", "olga@example.net")],
        "/account/keys": [("name", "laptop & “co”"), ("scopes", "meetings:read"), ("scopes", "host"), ("days", "30")],
    }
    for path, sent in forms.items():
        answer = await visitor.post(path, **encoded(sent))
        assert answer.status_code == 403
        assert re.search(r'<a [^>]*href="/account/prove" target="_blank" rel="noopener"', answer.text)
        assert carried(answer.text) == sent
    assert (await visitor.post("/account/data/delete")).headers["location"] == "/account/prove?next=/account/data", "nothing typed"
    proof = await visitor.post("/account/prove", data={"password": PASSWORD, "next": "/account"})
    assert (proof.status_code, proof.headers["location"]) == (303, "/account")
    assert (await visitor.post("/account/email", **encoded(forms["/account/email"]))).status_code == 303
    assert "laptop &amp; “co”" in (await visitor.post("/account/keys", **encoded(forms["/account/keys"]))).text


def test_every_field_that_never_comes_back_is_known() -> None:
    source = "\n".join(path.read_text("utf-8") for path in TEMPLATES.glob("**/*.html"))
    fields = re.findall(r'ui\.field\(\w+, "(\w+)"([^\n]*)', source)
    named = {name for name, rest in fields if 'type="password"' in rest or '"secret": true' in rest}
    named |= set(re.findall(r'ui\.new_password\(\w+, "(\w+)"', source)) | {"password", "answer"}
    assert {"current", "new", "code"} < named
    assert named <= SECRETS
