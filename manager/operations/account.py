"""Calls about one's own account."""

import json

from manager import api_types as t
from manager.callers import Scope
from manager.operations.said import (
    account_shown,
    key_shown,
    login_shown,
    signed_in_as,
    stage_of,
    token_of,
)
from manager.operations.sign_in import LINK
from manager.operations.table import Call, operation


@operation("GET", "/account", "One's own account.", gives=t.AccountShown, scope=Scope.ACCOUNT_READ)
async def own_account(call: Call) -> object:
    call.caller.require(Scope.ACCOUNT_READ)
    return account_shown(call.caller.account)


@operation(
    "PATCH",
    "/account",
    "Change name, zone or language.",
    takes=t.Profile,
    gives=t.AccountShown,
    scope=Scope.ACCOUNT_WRITE,
    example={"zone": "Asia/Tokyo"},
)
async def change_profile(call: Call) -> object:
    body: t.Profile = call.body
    return account_shown((await call.house.own.change_profile(call.caller, name=body.name, zone=body.zone, language=body.language)).account)


@operation("DELETE", "/account", "Delete one's own account. Needs a fresh proof.", people=True)
async def delete_own_account(call: Call) -> object:
    await call.house.own.delete(call.caller)
    return t.Done()


@operation(
    "POST",
    "/account/proof",
    "Show again who one is; it holds for 15 minutes.",
    takes=t.Prove,
    people=True,
    example={"password": "correct horse 7"},
)
async def prove(call: Call) -> object:
    await call.house.own.prove(call.caller, call.body.password, call.body.code)
    return t.Done()


@operation(
    "POST", "/account/password", "A new password; every other sign-in ends, and every API key unless they are kept.",
    takes=t.NewPassword, gives=t.SignedInAs, people=True,
    example={"current": "correct horse 7", "new": "correct horse 8", "code": "123456"},
)  # fmt: skip
async def change_password(call: Call) -> object:
    body: t.NewPassword = call.body
    words = (body.current, body.new, body.code)
    return signed_in_as(await call.house.own.change_password(call.caller, *words, keep_keys=body.keep_keys))


@operation(
    "POST",
    "/account/email",
    "Ask for another e-mail address; a letter goes there.",
    takes=t.Email,
    status=202,
    people=True,
    example={"email": "ann@example.net"},
)
async def change_email(call: Call) -> object:
    await call.house.own.change_email(call.caller, call.body.email)
    return t.Done()


@operation(
    "POST", "/account/email/confirm", "Confirm the new address, by that letter's link.", takes=t.LinkText, gives=t.SignedInAs, people=True,
    example={"link": LINK},
)  # fmt: skip
async def confirm_email(call: Call) -> object:
    return signed_in_as(await call.house.entrance.confirm_email(call.caller, call.body.link))


@operation("GET", "/account/security", "One's second factors.", gives=t.SecurityShown, people=True)
async def own_security(call: Call) -> object:
    found = await call.house.own.security(call.caller)
    passkeys = [t.PasskeyShown(key.id, key.name, key.created_at, key.used_at) for key in found.passkeys]
    return t.SecurityShown(found.has_totp, passkeys, found.recovery_codes_left)


@operation("POST", "/account/totp", "A key for an authenticator. Needs a fresh proof.", gives=t.TotpKey, people=True)
async def begin_totp(call: Call) -> object:
    setup = await call.house.own.begin_totp(call.caller)
    return t.TotpKey(setup.key, setup.uri, setup.svg)


@operation(
    "PUT",
    "/account/totp",
    "Keep that key: the authenticator shows this code.",
    takes=t.Code,
    gives=t.EnrolledAs,
    people=True,
    example={"code": "123456"},
)
async def finish_totp(call: Call) -> object:
    made = await call.house.own.finish_totp(call.caller, call.body.code)
    return t.EnrolledAs(made.recovery_codes, token_of(made.signed_in), stage_of(made.signed_in))


@operation("DELETE", "/account/totp", "Remove the authenticator. Needs a fresh proof.", people=True)
async def remove_totp(call: Call) -> object:
    await call.house.own.remove_totp(call.caller)
    return t.Done()


@operation("POST", "/account/passkeys/options", "What a browser needs to make a passkey. Needs a fresh proof.", gives=t.Options, people=True)
async def begin_passkey(call: Call) -> object:
    return t.Options(json.loads(await call.house.own.begin_passkey(call.caller)))


@operation(
    "POST", "/account/passkeys", "Keep the passkey that the browser made.", takes=t.PasskeyAnswer, gives=t.EnrolledAs, status=201, people=True,
    example={"answer": "{}", "name": "laptop"},
)  # fmt: skip
async def finish_passkey(call: Call) -> object:
    made = await call.house.own.finish_passkey(call.caller, call.body.answer, call.body.name)
    return t.EnrolledAs(made.recovery_codes, token_of(made.signed_in), stage_of(made.signed_in))


@operation("DELETE", "/account/passkeys/{number}", "Remove a passkey. Needs a fresh proof.", people=True)
async def remove_passkey(call: Call) -> object:
    await call.house.own.remove_passkey(call.caller, call.number)
    return t.Done()


@operation(
    "POST", "/account/recovery-codes", "Ten new recovery codes; the old ones are void. Needs a fresh proof.", gives=t.RecoveryCodes, people=True
)
async def new_recovery_codes(call: Call) -> object:
    return t.RecoveryCodes(await call.house.own.new_recovery_codes(call.caller))


@operation("GET", "/account/sign-ins", "Where one is signed in.", gives=t.SignInList, scope=Scope.ACCOUNT_READ)
async def list_sign_ins(call: Call) -> object:
    return t.SignInList([login_shown(login, call.caller) for login in await call.house.own.logins(call.caller)])


@operation("DELETE", "/account/sign-ins", "End all sign-ins but this one.", gives=t.Ended, scope=Scope.ACCOUNT_WRITE)
async def end_other_sign_ins(call: Call) -> object:
    return t.Ended(await call.house.own.end_other_logins(call.caller))


@operation("DELETE", "/account/sign-ins/{number}", "End one sign-in.", scope=Scope.ACCOUNT_WRITE)
async def end_sign_in(call: Call) -> object:
    await call.house.own.end_login(call.caller, call.number)
    return t.Done()


@operation("GET", "/account/keys", "One's API keys.", gives=t.KeyList, scope=Scope.ACCOUNT_READ)
async def list_keys(call: Call) -> object:
    return t.KeyList([key_shown(key) for key in await call.house.own.keys(call.caller)])


@operation(
    "POST", "/account/keys", "A new API key, shown once. Needs a fresh proof.", takes=t.NewKey, gives=t.KeyMade, status=201, people=True,
    example={"name": "build server", "scopes": ["meetings:read", "meetings:write"], "days": 90},
)  # fmt: skip
async def make_key(call: Call) -> object:
    made, text = await call.house.own.make_key(call.caller, call.body.name, call.body.scopes, call.body.days)
    return t.KeyMade(text, key_shown(made))


@operation("DELETE", "/account/keys/{number}", "Remove an API key.", scope=Scope.ACCOUNT_WRITE)
async def remove_key(call: Call) -> object:
    await call.house.own.remove_key(call.caller, call.number)
    return t.Done()


@operation("GET", "/account/export", "Everything that is kept about oneself.", gives=t.Exported, scope=Scope.ACCOUNT_READ)
async def export_account(call: Call) -> object:
    return t.Exported(await call.house.own.export(call.caller))
