"""Calls by which people come in: sign-in, sign-up, one-time links, a forgotten password."""

import json
from typing import Final

from manager import api_types as t
from manager.operations.said import (
    signed_in_as,
)
from manager.operations.table import Call, operation

LINK: Final = "Yk3reRijT7V3pRNirYp5-eOuEs2_xV23X4AEsWr8kZQ"


@operation(
    "POST", "/sign-in", "The first step: e-mail and password.", takes=t.SignIn, gives=t.SignedInAs,
    example={"email": "ann@example.org", "password": "correct horse 7"},
)  # fmt: skip
async def sign_in(call: Call) -> object:
    return signed_in_as(await call.house.entrance.sign_in(call.body.email, call.body.password, call.address, call.agent))


@operation(
    "POST",
    "/sign-in/code",
    "The second step: a TOTP or recovery code.",
    takes=t.Code,
    gives=t.SignedInAs,
    people=True,
    example={"code": "123456"},
)
async def use_code(call: Call) -> object:
    return signed_in_as(await call.house.entrance.use_code(call.caller, call.body.code))


@operation("POST", "/sign-in/passkey/options", "What a browser needs to use a passkey.", gives=t.Options, people=True)
async def ask_passkey(call: Call) -> object:
    return t.Options(json.loads(await call.house.entrance.ask_passkey(call.caller)))


@operation(
    "POST", "/sign-in/passkey", "The second step: a passkey.", takes=t.PasskeyAnswer, gives=t.SignedInAs, people=True, example={"answer": "{}"}
)
async def use_passkey(call: Call) -> object:
    return signed_in_as(await call.house.entrance.use_passkey(call.caller, call.body.answer))


@operation("POST", "/sign-out", "End this sign-in.", people=True)
async def sign_out(call: Call) -> object:
    await call.house.entrance.sign_out(call.caller)
    return t.Done()


@operation(
    "POST", "/sign-up", "Ask for an account; a letter goes to the address. Only if the policy allows it.", takes=t.SignUp, status=202,
    example={"email": "ann@example.org", "language": "fr"},
)  # fmt: skip
async def sign_up(call: Call) -> object:
    await call.house.entrance.sign_up(call.body.email, call.address, language=call.body.language)
    return t.Done()


@operation(
    "POST", "/links/look", "What a one-time link is about. It is not used up.", takes=t.LinkText, gives=t.LinkAbout, example={"link": LINK}
)
async def look_at_link(call: Call) -> object:
    link = await call.house.entrance.link(call.body.link)
    return t.LinkAbout(link.purpose.value, link.email, link.name, link.role.value, link.expires_at)


@operation(
    "POST", "/links/accept", "Take up an invitation or a sign-up: an account.", takes=t.Accept, gives=t.SignedInAs, status=201,
    example={"link": LINK, "name": "Ann", "password": "correct horse 7"},
)  # fmt: skip
async def accept_invitation(call: Call) -> object:
    b: t.Accept = call.body
    made = await call.house.entrance.accept(b.link, b.name, b.password, call.address, call.agent, zone=b.zone, language=b.language)
    return signed_in_as(made)


@operation(
    "POST", "/password/forgot", "Ask for a letter to choose a new password.", takes=t.Email, status=202, example={"email": "ann@example.org"}
)
async def forgot_password(call: Call) -> object:
    await call.house.entrance.forgot(call.body.email, call.address)
    return t.Done()


@operation(
    "POST", "/password/reset", "Choose a new password, by that letter's link.", takes=t.Reset, gives=t.SignedInAs,
    example={"link": LINK, "password": "correct horse 8"},
)  # fmt: skip
async def reset_password(call: Call) -> object:
    return signed_in_as(await call.house.entrance.reset(call.body.link, call.body.password, call.address, call.agent))
