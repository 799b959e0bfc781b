"""Pages for coming in: sign-in with its second step, sign-up, and the links from mails."""

from starlette.responses import Response

from manager.accounts import ZONES
from manager.entrance import SignedIn
from manager.errors import LinkWorthless, SignInNeeded
from manager.site.forms import Form
from manager.site.languages import LANGUAGES
from manager.site.pages import redirect
from manager.site.visit import N_, STEPS, Visit
from manager.site.web import LANGUAGE, SESSION, YEAR, inner_path_untrusted

AFTER = "parley-next"
"""A cookie with the page that was asked for before signing in."""


async def sign_in(visit: Visit) -> Response:
    """E-mail and password."""
    if visit.caller is not None and visit.caller.login is not None and not visit.posted:
        return redirect(STEPS.get(visit.caller.login.stage, "/meetings"))
    wanted = inner_path_untrusted(visit.request.query_params.get("next", "/meetings"))
    if visit.posted:
        form = await visit.read_form()
        wanted = inner_path_untrusted(form.text("next"))
        with form.judging("email", "password"):
            signed_in = await visit.site.entrance.sign_in(form.text("email"), form.raw("password"), visit.address, visit.agent)
            response = _onward(visit, signed_in, wanted)
            visit.site.cookies.set(response, AFTER, wanted, seconds=900)
            return response
    return visit.render("sign_in.html", next=wanted, open_sign_up=(await visit.site.entrance.policy()).sign_up)


async def second(visit: Visit) -> Response:
    """The second step: a code or a passkey."""
    return await _second(visit, Form(), Form())


async def code(visit: Visit) -> Response:
    form = await visit.read_form()
    with form.judging("code", otherwise="code"):
        return _onward(visit, await visit.site.entrance.use_code(visit.who, form.text("code")))
    return await _second(visit, form, Form())


async def passkey(visit: Visit) -> Response:
    form = await visit.read_form()
    with form.judging():
        return _onward(visit, await visit.site.entrance.use_passkey(visit.who, form.raw("answer")))
    return await _second(visit, Form(), form)


async def passkey_options(visit: Visit) -> Response:
    """For the script: what the browser's authenticator is asked."""
    return Response(await visit.site.entrance.ask_passkey(visit.who), media_type="application/json")


async def _second(visit: Visit, form: Form, passkey_form: Form) -> Response:
    visit.form = form
    account = visit.who.account
    status = 422 if form.errors or passkey_form.errors else 200
    return visit.render("second.html", status, passkey_form=passkey_form, passkeys=account.passkeys, totp=account.has_totp, recovery=True)


def _onward(visit: Visit, signed_in: SignedIn, wanted: str = "") -> Response:
    """To the next step, or where one wanted to go; the browser gets the fresh bits."""
    assert signed_in.caller.login is not None
    wanted = wanted or inner_path_untrusted(visit.site.cookies.get(visit.request, AFTER) or "/")
    path = STEPS.get(signed_in.caller.login.stage, wanted if wanted != "/" else "/meetings")
    return visit.sign_in(redirect(path), signed_in.cookie)


async def sign_out(visit: Visit) -> Response:
    if visit.caller is not None:
        await visit.site.entrance.sign_out(visit.caller)
    response = redirect("/")
    visit.site.cookies.clear(response, SESSION)
    response.headers["clear-site-data"] = '"cache"'
    return response


async def sign_up(visit: Visit) -> Response:
    """An account of one's own, if the operator allows it. Whether the address has one already is told to its mailbox alone."""
    if visit.posted:
        form = await visit.read_form()
        with form.judging("email"):
            await visit.site.entrance.sign_up(form.text("email"), visit.address, language=visit.language.code)
            return _mailed(visit, N_("We have sent you a link. Open it within a day, and choose your name and password there."))
    return visit.render("sign_up.html")


async def welcome(visit: Visit) -> Response:
    """Take up the invitation to have an account, or a sign-up: who opens that link has the mailbox."""
    if visit.posted:
        form = await visit.read_form()
        with form.judging("token", "name", "password"):
            try:
                words = (form.text("token"), form.text("name"), form.raw("password"))
                return _onward(visit, await visit.site.entrance.accept(*words, visit.address, visit.agent, **_place(visit)))
            except LinkWorthless as worthless:
                form.errors["token"] = worthless.sentence
    return _with_token(
        visit,
        N_("Welcome"),
        N_("An account is waiting for you here. Choose how you are called, and a password."),
        N_("Begin"),
        name=True,
    )


async def confirm(visit: Visit) -> Response:
    """An account's new address is real: for who is signed in to it."""
    if visit.posted:
        form = await visit.read_form()
        with form.judging("token"):
            try:
                if visit.caller is None:
                    raise SignInNeeded
                return _onward(visit, await visit.site.entrance.confirm_email(visit.caller, form.text("token")))
            except LinkWorthless as worthless:
                form.errors["token"] = worthless.sentence
            except SignInNeeded:
                form.errors["token"] = N_("Sign in to the account whose new address this is; then open the link from the mail again.")
    return _with_token(visit, N_("Confirm your address"), N_("One press, and the address is confirmed."), N_("Confirm"), password=False)


async def forgot(visit: Visit) -> Response:
    """The same answer whether there is such an account."""
    if visit.posted:
        form = await visit.read_form()
        with form.judging("email"):
            await visit.site.entrance.forgot(form.text("email"), visit.address)
            return _mailed(visit, N_("If there is an account with this address, a link is on its way. It works for an hour."))
    return visit.render("forgot.html")


async def reset(visit: Visit) -> Response:
    """A new password, by the link from the mail."""
    if visit.posted:
        form = await visit.read_form()
        with form.judging("token", "password"):
            try:
                words = (form.text("token"), form.raw("password"))
                return _onward(visit, await visit.site.entrance.reset(*words, visit.address, visit.agent))
            except LinkWorthless as worthless:
                form.errors["token"] = worthless.sentence
    return _with_token(
        visit,
        N_("A new password"),
        N_("All sign-ins of your account end when it changes, and its API keys are removed."),
        N_("Change the password"),
    )


def _place(visit: Visit) -> dict[str, str]:
    """Zone and language of a new account: the browser's."""
    zone = visit.form.text("zone")
    return {"zone": zone if zone in ZONES else "UTC", "language": visit.language.code}


def _with_token(visit: Visit, title: str, words: str, button: str, *, name: bool = False, password: bool = True) -> Response:
    words, title, button = visit.say(words), visit.say(title), visit.say(button)
    return visit.render("welcome.html", title=title, words=words, button=button, asks_name=name, asks_password=password)


def _mailed(visit: Visit, words: str) -> Response:
    visit.form = Form()
    return visit.render("mailed.html", words=visit.say(words))


async def language(visit: Visit) -> Response:
    """The reader's choice, for a year."""
    form = await visit.read_form()
    response = redirect(inner_path_untrusted(form.text("back")))
    if (chosen := form.text("language")) in LANGUAGES:
        visit.site.cookies.set(response, LANGUAGE, chosen, seconds=YEAR)
    return response
