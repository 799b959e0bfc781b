"""Pages of one's own account."""

from urllib.parse import quote

import msgspec
from markupsafe import Markup
from starlette.responses import Response

from manager.callers import ORGANIZER_SCOPES, Scope, Stage
from manager.factors import TotpSetup
from manager.own import PROOF_LASTS, Enrolled
from manager.site.forms import Form
from manager.site.pages import redirect
from manager.site.visit import N_, View, Visit, bad
from manager.site.web import SESSION, inner_path_untrusted

SCOPES = {
    Scope.MEETINGS_READ: N_("See meetings"),
    Scope.MEETINGS_WRITE: N_("Schedule, change and cancel meetings"),
    Scope.HOST: N_("Open and end meetings, remove participants"),
    Scope.ACCOUNT_READ: N_("See this account"),
    Scope.ACCOUNT_WRITE: N_("Change this account"),
    Scope.ADMIN_READ: N_("See users, reports and nodes"),
    Scope.ADMIN_WRITE: N_("Rule users and policy"),
}
_ADMINISTRATORS = frozenset({Scope.ADMIN_READ, Scope.ADMIN_WRITE})
DAYS = {"": None, "30": 30, "90": 90, "365": 365}
FORM_WITHIN = 300.0
"""Seconds for which a proof must still hold when a form that needs it is shown, so that nothing typed is lost."""


async def profile(visit: Visit) -> Response:
    if visit.posted:
        form = await visit.read_form()
        with form.judging("name", "zone", "language"):
            words = {name: form.text(name) for name in ("name", "zone", "language")}
            await visit.site.own.change_profile(visit.who, **words)
            return visit.done("/account", "saved")
    return visit.render("account/profile.html", email_form=Form())


async def email(visit: Visit) -> Response:
    """Another address: a letter there confirms it."""
    form = await visit.read_form()
    with form.judging("email"):
        await visit.site.own.change_email(visit.who, form.text("email"))
        return visit.done("/account", "email")
    visit.form = Form()
    return visit.render("account/profile.html", 422, email_form=form)


async def prove(visit: Visit) -> Response:
    """Password and second factor once more, before what a thief of the cookie must not do."""
    wanted = inner_path_untrusted(visit.request.query_params.get("next", "/account"))
    if visit.posted:
        form = await visit.read_form()
        wanted = inner_path_untrusted(form.text("next"))
        with form.judging("password", "code", otherwise="password"):
            await visit.site.own.prove(visit.who, form.raw("password"), form.text("code"))
            return redirect(wanted)
    return visit.render("account/prove.html", next=wanted, passkey_form=Form())


async def prove_by_passkey(visit: Visit) -> Response:
    form = await visit.read_form()
    wanted = inner_path_untrusted(form.text("next"))
    with form.judging():
        signed_in = await visit.site.entrance.use_passkey(visit.who, form.raw("answer"))
        return visit.sign_in(redirect(wanted), signed_in.cookie)
    visit.form = Form()
    return visit.render("account/prove.html", 422, next=wanted, passkey_form=form)


def fresh(view: View) -> View:
    """A page whose forms need a recent proof: it is asked for before, and not after everything has been typed."""

    async def proved(visit: Visit) -> Response:
        login = visit.who.login
        if login is not None and login.stage is Stage.COMPLETE and visit.site.clock() - login.proved_at > PROOF_LASTS - FORM_WITHIN:
            return redirect(f"/account/prove?next={quote(visit.request.scope['path'])}")
        return await view(visit)

    async def either(visit: Visit) -> Response:
        return await (view if visit.posted else proved)(visit)

    return either


async def password(visit: Visit) -> Response:
    login = visit.who.login
    has_keys = login is None or login.stage is not Stage.COMPLETE or bool(await visit.site.own.keys(visit.who))
    if visit.posted:
        form = await visit.read_form()
        with form.judging("current", "new", "code", otherwise="current"):
            words = (form.raw("current"), form.raw("new"), form.text("code"))
            keep = form.text("drop_keys") != "yes"
            signed_in = await visit.site.own.change_password(visit.who, *words, keep_keys=keep)
            done = visit.done("/account/password", "password-and-keys" if has_keys and not keep else "password")
            return visit.sign_in(done, signed_in.cookie)
    return visit.render("account/password.html", has_keys=has_keys)


async def factors(visit: Visit) -> Response:
    return await _factors(visit)


async def begin_app(visit: Visit) -> Response:
    return await _factors(visit, totp=await visit.site.own.begin_totp(visit.who))


async def confirm_app(visit: Visit) -> Response:
    form = await visit.read_form()
    with form.judging("code"):
        return await _enrolled(visit, await visit.site.own.finish_totp(visit.who, form.text("code")))
    return await _factors(visit, totp=await visit.site.own.begin_totp(visit.who))


async def remove_app(visit: Visit) -> Response:
    await visit.site.own.remove_totp(visit.who)
    return visit.done("/account/factors", "removed")


async def passkey_options(visit: Visit) -> Response:
    """For the script: what the browser's authenticator is asked."""
    return Response(await visit.site.own.begin_passkey(visit.who), media_type="application/json")


async def add_passkey(visit: Visit) -> Response:
    form = await visit.read_form()
    with form.judging("name"):
        return await _enrolled(visit, await visit.site.own.finish_passkey(visit.who, form.raw("answer"), form.text("name")))
    visit.form = Form()
    return await _factors(visit, passkey_form=form)


async def remove_passkey(visit: Visit) -> Response:
    await visit.site.own.remove_passkey(visit.who, visit.number())
    return visit.done("/account/factors", "removed")


async def new_codes(visit: Visit) -> Response:
    return await _factors(visit, codes=await visit.site.own.new_recovery_codes(visit.who))


async def _enrolled(visit: Visit, enrolled: Enrolled) -> Response:
    """The page once more, with the recovery codes, as who one is from now on."""
    visit.caller, visit.form = enrolled.signed_in.caller, Form()
    return visit.sign_in(await _factors(visit, codes=enrolled.recovery_codes), enrolled.signed_in.cookie)


async def _factors(
    visit: Visit, *, totp: TotpSetup | None = None, codes: list[str] | None = None, passkey_form: Form | None = None
) -> Response:
    qr = Markup(totp.svg) if totp else ""  # noqa: S704  # segno's own drawing
    return visit.render(
        "account/factors.html",
        422 if visit.form.errors or (passkey_form and passkey_form.errors) else 200,
        security=await visit.site.own.security(visit.who),
        totp=totp,
        qr=qr,
        codes=codes,
        passkey_form=passkey_form or Form(),
    )


async def sign_ins(visit: Visit) -> Response:
    login = visit.who.login
    logins = await visit.site.own.logins(visit.who)
    return visit.render("account/sign_ins.html", logins=logins, current=login.id if login else 0, agent=agent_words)


async def end_sign_in(visit: Visit) -> Response:
    await visit.site.own.end_login(visit.who, visit.number())
    return visit.done("/account/sign-ins", "ended")


async def end_other_sign_ins(visit: Visit) -> Response:
    await visit.site.own.end_other_logins(visit.who)
    return visit.done("/account/sign-ins", "ended")


async def keys(visit: Visit) -> Response:
    made = ""
    if visit.posted:
        form = await visit.read_form()
        with form.judging("name", "scopes", "days"):
            if form.text("days") not in DAYS:
                raise bad("days", N_("choose one of the list"))
            _, made = await visit.site.own.make_key(visit.who, form.text("name"), form.all("scopes"), DAYS[form.text("days")])
            visit.form = Form()
    offered = [(scope, visit.say(said)) for scope, said in SCOPES.items() if visit.who.account.role.administers or scope not in _ADMINISTRATORS]
    return visit.render("account/keys.html", keys=await visit.site.own.keys(visit.who), key=made, scopes=offered, usual=ORGANIZER_SCOPES)


async def remove_key(visit: Visit) -> Response:
    await visit.site.own.remove_key(visit.who, visit.number())
    return visit.done("/account/keys", "removed")


async def data(visit: Visit) -> Response:
    return visit.render("account/data.html")


async def export(visit: Visit) -> Response:
    headers = {"content-disposition": 'attachment; filename="parley-account.json"'}
    body = msgspec.json.format(msgspec.json.encode(await visit.site.own.export(visit.who)))
    return Response(body, media_type="application/json", headers=headers)


async def delete(visit: Visit) -> Response:
    with visit.form.judging():
        await visit.site.own.delete(visit.who)
        response = visit.done("/sign-in", "deleted")
        visit.site.cookies.clear(response, SESSION)
        return response
    return visit.render("account/data.html")


def agent_words(agent: str) -> str:
    """A browser's name as people know it: "Firefox, Linux"."""
    browsers = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chromium"), ("Safari/", "Safari"))
    systems = (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "macOS"), ("Linux", "Linux"))
    known = [next((name for mark, name in marks if mark in agent), "") for marks in (browsers, systems)]
    return ", ".join(filter(None, known)) or agent[:60] or "?"
