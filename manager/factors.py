"""Second factors: TOTP, passkeys, recovery codes. Rules over the store; no HTTP.

TOTP (RFC 6238): SHA-1, six digits, 30 s, one step of tolerance either way; a code counts once. Passkeys (WebAuthn level 2): user
verification is asked for, the challenge is the store's and counts once. Ten recovery codes of 80 bits, each counts once; making new ones
voids the old. A factor that is set up is proved in the same breath, or it is not kept.
"""

import secrets
from base64 import b32decode, b32encode
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from io import BytesIO
from typing import Any, Final

import pyotp
import segno
from sqlalchemy import Connection, delete, func, select
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import parse_authentication_credential_json, parse_registration_credential_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from manager.accounts import Account, clean_name
from manager.errors import RequestMalformed, SignInRefused
from manager.hidden import Hidden
from manager.seal import Seal
from manager.store import accounts, logins, passkeys, recovery_codes

ISSUER: Final = "Parley"
TOTP_KEY: Final = 20
"""Bytes."""
STEP: Final = 30
RECOVERY_CODES: Final = 10
MAX_PASSKEYS: Final = 20


@dataclass(frozen=True, slots=True)
class TotpSetup:
    """What an authenticator needs: as text to type, as `otpauth:` URI, and that as an SVG image. For one pair of eyes."""

    key: str = field(repr=False)
    uri: str = field(repr=False)
    svg: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Passkey:
    id: int
    name: str
    created_at: float
    used_at: float | None


def begin_totp(db: Connection, account: Account, login: int, seal: Seal) -> TotpSetup:
    """A fresh key, kept sealed beside the sign-in until a code proves that an authenticator has it."""
    key = Hidden(secrets.token_bytes(TOTP_KEY))
    db.execute(logins.update().where(logins.c.id == login).values(totp=seal.seal(key, account.id)))
    text = b32encode(key.reveal()).decode()
    uri = pyotp.TOTP(text).provisioning_uri(name=account.email or account.name, issuer_name=ISSUER)
    image = BytesIO()
    segno.make(uri, error="m").save(image, kind="svg", scale=4, border=2, xmldecl=False, svgns=True, omitsize=True)
    return TotpSetup(text, uri, image.getvalue().decode())


def finish_totp(db: Connection, account: Account, login: int, code: str, seal: Seal, now: float) -> list[str]:
    """Keep the key if the code is right: new recovery codes, if it is the first factor. Raises `RequestMalformed` (the code)."""
    sealed = db.execute(select(logins.c.totp).where(logins.c.id == login)).scalar_one_or_none()
    key = None if sealed is None else seal.open(sealed, account.id)
    step = None if key is None else _step_of(key, code, 0, now)
    if step is None:
        raise RequestMalformed(fields={"code": "this code is not the one that your authenticator shows now"})
    db.execute(accounts.update().where(accounts.c.id == account.id).values(totp=sealed, totp_step=step))
    db.execute(logins.update().where(logins.c.id == login).values(totp=None))
    return [] if account.has_factor else new_recovery_codes(db, account.id)


def remove_totp(db: Connection, account: int) -> None:
    db.execute(accounts.update().where(accounts.c.id == account).values(totp=None, totp_step=0))
    _no_codes_without_a_factor(db, account)


def prove_code(db: Connection, account: int, code: str, seal: Seal, now: float) -> str:
    """`totp` or `recovery`: which kind of code this was. It is used up. Raises `SignInRefused`."""
    row = db.execute(select(accounts.c.totp, accounts.c.totp_step).where(accounts.c.id == account).with_for_update()).one()
    key = None if row.totp is None else seal.open(row.totp, account)
    step = None if key is None else _step_of(key, code, row.totp_step, now)
    if step is not None:
        db.execute(accounts.update().where(accounts.c.id == account).values(totp_step=step))
        return "totp"
    used = (recovery_codes.c.account_id == account) & (recovery_codes.c.digest == _recovery_digest(code))
    if db.execute(delete(recovery_codes).where(used)).rowcount:
        return "recovery"
    raise SignInRefused


def _step_of(key: Hidden, code: str, after: int, now: float) -> int | None:
    """The time step whose code this is, if it is near and later than `after`. Every candidate is compared, in constant time."""
    typed = "".join(code.split())
    if not (len(typed) == 6 and typed.isascii() and typed.isdigit()):
        return None
    generator = pyotp.TOTP(b32encode(key.reveal()).decode())
    current = int(now // STEP)
    found = [step for step in (current - 1, current, current + 1) if compare_digest(generator.generate_otp(step), typed)]
    return next((step for step in found if step > after), None)


def new_recovery_codes(db: Connection, account: int) -> list[str]:
    """Ten, the only time that they are shown; earlier ones are void."""
    db.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account))
    made = []
    for _ in range(RECOVERY_CODES):
        text = b32encode(secrets.token_bytes(10)).decode().lower()
        made.append("-".join(text[at : at + 4] for at in range(0, 16, 4)))
        db.execute(recovery_codes.insert().values(account_id=account, digest=_recovery_digest(made[-1])))
    return made


def recovery_codes_left(db: Connection, account: int) -> int:
    return int(db.execute(select(func.count()).select_from(recovery_codes).where(recovery_codes.c.account_id == account)).scalar_one())


def _recovery_digest(code: str) -> bytes:
    typed = "".join(c for c in code.upper() if c.isalnum())
    try:
        return sha256(b"parley recovery" + b32decode(typed)).digest()
    except ValueError:
        return bytes(32)


def passkeys_of(db: Connection, account: int) -> list[Passkey]:
    rows = db.execute(select(passkeys).where(passkeys.c.account_id == account).order_by(passkeys.c.id))
    return [Passkey(row.id, row.name, row.created_at, row.used_at) for row in rows]


def begin_passkey(db: Connection, account: Account, login: int, host: str) -> str:
    """JSON for `navigator.credentials.create`. `host`: the site's name, which the passkey is bound to."""
    challenge = _challenge(db, login)
    return options_to_json(
        generate_registration_options(
            rp_id=host,
            rp_name=ISSUER,
            user_id=sha256(b"parley passkey user" + account.id.to_bytes(8, "big")).digest(),
            user_name=account.email or account.name,
            user_display_name=account.name,
            challenge=challenge,
            exclude_credentials=_descriptors(db, account.id),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.PREFERRED
            ),
        )
    )


def finish_passkey(db: Connection, account: Account, login: int, answer: str, name: str, host: str, origin: str, now: float) -> list[str]:
    """Keep the passkey: new recovery codes, if it is the first factor. Raises `RequestMalformed`."""
    try:
        name = clean_name(name)
    except RequestMalformed as wrong:
        raise RequestMalformed(fields={"name": wrong.detail}) from None
    if account.passkeys >= MAX_PASSKEYS:
        raise RequestMalformed(fields={"name": "an account has 20 passkeys at most; remove one first"})
    challenge = _take_challenge(db, login)
    try:
        made = verify_registration_response(
            credential=parse_registration_credential_json(answer),
            expected_challenge=challenge,
            expected_rp_id=host,
            expected_origin=origin,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError, RecursionError):
        raise RequestMalformed(fields={"passkey": "this passkey could not be verified; try again"}) from None
    if db.execute(select(passkeys.c.id).where(passkeys.c.credential == made.credential_id)).first() is not None:
        raise RequestMalformed(fields={"passkey": "this passkey is registered already"})
    db.execute(
        passkeys.insert().values(
            account_id=account.id,
            credential=made.credential_id,
            public_key=made.credential_public_key,
            sign_count=made.sign_count,
            name=name,
            created_at=now,
        )
    )
    return [] if account.has_factor else new_recovery_codes(db, account.id)


def remove_passkey(db: Connection, account: int, number: int) -> bool:
    """Whether there was one."""
    chosen = (passkeys.c.account_id == account) & (passkeys.c.id == number)
    removed = db.execute(delete(passkeys).where(chosen)).rowcount > 0
    _no_codes_without_a_factor(db, account)
    return removed


def ask_passkey(db: Connection, account: int, login: int, host: str) -> str:
    """JSON for `navigator.credentials.get`."""
    return options_to_json(
        generate_authentication_options(
            rp_id=host,
            challenge=_challenge(db, login),
            allow_credentials=_descriptors(db, account),
            user_verification=UserVerificationRequirement.PREFERRED,
        )
    )


def prove_passkey(db: Connection, account: int, login: int, answer: str, host: str, origin: str, now: float) -> None:
    """Raises `SignInRefused`."""
    challenge = _take_challenge(db, login)
    try:
        credential = parse_authentication_credential_json(answer)
        used = (passkeys.c.account_id == account) & (passkeys.c.credential == credential.raw_id)
        row: Any = db.execute(select(passkeys).where(used).with_for_update()).one_or_none()
        if row is None:
            raise SignInRefused
        proof = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=host,
            expected_origin=origin,
            credential_public_key=row.public_key,
            credential_current_sign_count=row.sign_count,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError, RecursionError):
        raise SignInRefused from None
    db.execute(passkeys.update().where(passkeys.c.id == row.id).values(sign_count=proof.new_sign_count, used_at=now))


def reset(db: Connection, account: int) -> None:
    """Take every factor away: an administrator's help for who lost all of them."""
    db.execute(delete(passkeys).where(passkeys.c.account_id == account))
    remove_totp(db, account)


def _challenge(db: Connection, login: int) -> bytes:
    challenge = secrets.token_bytes(32)
    db.execute(logins.update().where(logins.c.id == login).values(challenge=Hidden(challenge)))
    return challenge


def _take_challenge(db: Connection, login: int) -> bytes:
    """The challenge of the ceremony under way; it counts once."""
    challenge = db.execute(select(logins.c.challenge).where(logins.c.id == login)).scalar_one_or_none()
    db.execute(logins.update().where(logins.c.id == login).values(challenge=None))
    return secrets.token_bytes(32) if challenge is None else challenge.reveal()


def _descriptors(db: Connection, account: int) -> list[PublicKeyCredentialDescriptor]:
    found = db.execute(select(passkeys.c.credential).where(passkeys.c.account_id == account)).scalars()
    return [PublicKeyCredentialDescriptor(id=bytes(credential)) for credential in found]


def _no_codes_without_a_factor(db: Connection, account: int) -> None:
    row = db.execute(select(accounts.c.totp).where(accounts.c.id == account)).one_or_none()
    if (row is None or row.totp is None) and not passkeys_of(db, account):
        db.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account))
