"""What the API takes and gives: one struct a shape, the source of its JSON schema. Times are seconds since 1970, UTC.

`Takes` refuses a field that is not listed, so nothing that looks like a meeting's password has a place anywhere.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from manager.calendar import MAX_MINUTES, Repeat
from wire.ids import MEETING_IDS

Text = Annotated[str, Meta(max_length=1000)]
Hex8 = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
Key32 = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{43}$", max_length=43)]
Password = Annotated[str, Meta(max_length=1000)]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
MeetingNumber = Annotated[int, Meta(ge=MEETING_IDS.start, lt=MEETING_IDS.stop)]
Names = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=32)]


class Takes(Struct, frozen=True, forbid_unknown_fields=True):
    """What a request may say."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Nothing(Takes, frozen=True, forbid_unknown_fields=True):
    """An empty object, or no body."""


class WorkDone(Takes, frozen=True, forbid_unknown_fields=True):
    """A challenge and the nonce that solves it."""

    challenge: Annotated[str, Meta(max_length=64)]
    nonce: Annotated[str, Meta(max_length=32)]


class AskTicket(Takes, frozen=True, forbid_unknown_fields=True):
    meeting_id: MeetingNumber
    invite: Hex8 | None = None
    proof: WorkDone | None = None


class SignIn(Takes, frozen=True, forbid_unknown_fields=True):
    email: Text
    password: Password


class Code(Takes, frozen=True, forbid_unknown_fields=True):
    code: Annotated[str, Meta(max_length=64)]


class PasskeyAnswer(Takes, frozen=True, forbid_unknown_fields=True):
    """What the browser's `navigator.credentials` gave, as JSON text."""

    answer: Annotated[str, Meta(max_length=20_000)]
    name: Annotated[str, Meta(max_length=200)] = "passkey"


class SignUp(Takes, frozen=True, forbid_unknown_fields=True):
    email: Text
    language: Text = "en"


class LinkText(Takes, frozen=True, forbid_unknown_fields=True):
    """What stands behind the `#` of a one-time link."""

    link: Text


class Accept(Takes, frozen=True, forbid_unknown_fields=True):
    link: Text
    name: Text
    password: Password
    zone: Text = "UTC"
    language: Text = "en"


class Email(Takes, frozen=True, forbid_unknown_fields=True):
    email: Text


class Reset(Takes, frozen=True, forbid_unknown_fields=True):
    link: Text
    password: Password


class Guess(Takes, frozen=True, forbid_unknown_fields=True):
    """A password to be rated; it is not kept."""

    password: Password
    email: Text = ""
    name: Text = ""


class Profile(Takes, frozen=True, forbid_unknown_fields=True):
    name: Text | None = None
    zone: Text | None = None
    language: Text | None = None


class Prove(Takes, frozen=True, forbid_unknown_fields=True):
    password: Password
    code: Annotated[str, Meta(max_length=64)] = ""


class NewPassword(Takes, frozen=True, forbid_unknown_fields=True):
    """`keep_keys`: whether API keys go on; else they are removed, since whoever knew the old password may have made one."""

    current: Password
    new: Password
    code: Annotated[str, Meta(max_length=64)] = ""
    keep_keys: bool = False


class NewKey(Takes, frozen=True, forbid_unknown_fields=True):
    """`days`: how long it lives; null is for ever."""

    name: Text
    scopes: Names
    days: int | None = None


class Schedule(Takes, frozen=True, forbid_unknown_fields=True):
    """`starts`: YYYY-MM-DDTHH:MM on the wall of `zone`, null for any time. `meeting_key`: null until an endpoint has made it."""

    title: Text
    meeting_key: Key32 | None = None
    starts: Text | None = None
    zone: Text = "UTC"
    minutes: Annotated[int, Meta(ge=1, le=MAX_MINUTES)] = 60
    repeat: Repeat | None = None
    features_off: Names = []


class Edit(Takes, frozen=True, forbid_unknown_fields=True):
    """What is left out stays. `starts`, `zone`, `minutes` and `repeat` change together: what of them is left out falls back to its default."""

    title: Text | None = None
    starts: Text | UnsetType | None = UNSET
    zone: Text = "UTC"
    minutes: Annotated[int, Meta(ge=1, le=MAX_MINUTES)] = 60
    repeat: Repeat | None = None
    features_off: Names | None = None


class MeetingKey(Takes, frozen=True, forbid_unknown_fields=True):
    """The public half of the organizer's key of this meeting, made by the endpoint that will host."""

    meeting_key: Key32


class Guests(Takes, frozen=True, forbid_unknown_fields=True):
    guests: Annotated[list[Text], Meta(max_length=100)]


class Revoke(Takes, frozen=True, forbid_unknown_fields=True):
    participant: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]


class ChangeAccount(Takes, frozen=True, forbid_unknown_fields=True):
    """What is left out stays."""

    role: Text | None = None
    active: bool | None = None
    features_off: Names | None = None
    factor_required: bool | None = None


class Invite(Takes, frozen=True, forbid_unknown_fields=True):
    email: Text
    name: Text = ""
    role: Text = "organizer"
    language: Text = "en"


# answers


class Gives(Struct, frozen=True):
    """What an answer says."""


class Done(Gives, frozen=True):
    """It is done."""


class Health(Gives, frozen=True):
    status: Literal["ok"]


class ChallengeMade(Gives, frozen=True):
    """Find a nonce for which SHA-256(challenge ‖ ":" ‖ nonce) begins with `bits` zero bits."""

    challenge: str
    bits: int


class RelayAddresses(Gives, frozen=True):
    node: str
    addresses: list[tuple[str, int]]


class TicketGiven(Gives, frozen=True):
    """Binary values in hex, keys in base64url without padding. Not for a log."""

    session: Hex8
    participant: int
    role: int
    token: Hex8
    secret: str
    meeting_id: MeetingNumber
    title: str
    meeting_key: Key32
    relays: list[RelayAddresses]
    cluster: str
    features: list[str]


class SignedInAs(Gives, frozen=True):
    """`token`: say it as `Authorization: Bearer TOKEN`. `stage`: what is due next: factor, enrol, password; or complete."""

    token: str
    stage: str
    csrf: str


class LinkAbout(Gives, frozen=True):
    purpose: str
    email: str
    name: str
    role: str
    expires_at: float


class Rating(Gives, frozen=True):
    """`score`: 0 (guessed at once) to 4. `problem`: why it would be refused, or null."""

    score: int
    problem: str | None


class AccountShown(Gives, frozen=True):
    id: int
    email: str | None
    name: str
    role: str
    active: bool
    features: list[str]
    features_off: list[str]
    has_totp: bool
    passkeys: int
    factor_required: bool
    zone: str
    language: str
    created_at: float


class AccountList(Gives, frozen=True):
    accounts: list[AccountShown]


class PasskeyShown(Gives, frozen=True):
    id: int
    name: str
    created_at: float
    used_at: float | None


class SecurityShown(Gives, frozen=True):
    has_totp: bool
    passkeys: list[PasskeyShown]
    recovery_codes_left: int


class TotpKey(Gives, frozen=True):
    """`svg`: the `uri` as a QR code."""

    key: str
    uri: str
    svg: str


class Options(Gives, frozen=True):
    """For the browser's `navigator.credentials`."""

    options: dict[str, Any]


class EnrolledAs(Gives, frozen=True):
    """`recovery_codes`: shown once; empty if the account had a factor before. `token`: the sign-in's from now on."""

    recovery_codes: list[str]
    token: str
    stage: str


class RecoveryCodes(Gives, frozen=True):
    recovery_codes: list[str]


class SignInShown(Gives, frozen=True):
    id: int
    current: bool
    address: str
    agent: str
    created_at: float
    used_at: float


class SignInList(Gives, frozen=True):
    sign_ins: list[SignInShown]


class Ended(Gives, frozen=True):
    ended: int


class KeyShown(Gives, frozen=True):
    id: int
    name: str
    scopes: list[str]
    created_at: float
    used_at: float | None
    expires_at: float | None


class KeyMade(Gives, frozen=True):
    """`key`: shown once."""

    key: str
    about: KeyShown


class KeyList(Gives, frozen=True):
    keys: list[KeyShown]


class Exported(Gives, frozen=True):
    """Everything that is kept about a person."""

    export: dict[str, Any]


class MeetingShown(Gives, frozen=True):
    """`link`: without its fragment. `begins_at`, `ends_at`: of the occurrence that runs or comes next."""

    meeting_id: MeetingNumber
    invite: Hex8
    link: str
    title: str
    meeting_key: Key32 | None
    state: Literal["scheduled", "open", "ended", "cancelled"]
    coming: bool
    starts: str | None
    zone: str
    minutes: int
    repeat: Repeat | None
    begins_at: float | None
    ends_at: float | None
    features_off: list[str]
    session: Hex8 | None
    created_at: float
    changed_at: float


class MeetingList(Gives, frozen=True):
    meetings: list[MeetingShown]


class LettersSent(Gives, frozen=True):
    letters: int


class SessionShown(Gives, frozen=True):
    """`attendees`: guests whom the organizer let in; whose program was started anew counts again."""

    meeting_id: MeetingNumber
    title: str
    organizer: int
    organizer_name: str
    opened_at: float
    ended_at: float | None
    minutes: float
    attendees: int


class SessionList(Gives, frozen=True):
    sessions: list[SessionShown]


class InvitationShown(Gives, frozen=True):
    id: int
    email: str
    name: str
    role: str
    created_at: float
    expires_at: float


class InvitationList(Gives, frozen=True):
    invitations: list[InvitationShown]


class RecordShown(Gives, frozen=True):
    number: int
    at: float
    account: int | None
    address: str
    act: str
    subject: str
    detail: str
    digest: str


class RecordList(Gives, frozen=True):
    records: list[RecordShown]


class AuditVerified(Gives, frozen=True):
    """Note both elsewhere: a chain cannot show that its end was cut off."""

    records: int
    head: str


class NodeShown(Gives, frozen=True):
    """`state`: connected, draining, silent (it does not acknowledge) or away. `heard_at`: when it last said how busy it is."""

    node: str
    state: str
    links: int
    sessions: int
    addresses: list[tuple[str, int]]
    linked_at: float | None
    heard_at: float | None
    certificate_ends_at: float | None


class NodeList(Gives, frozen=True):
    nodes: list[NodeShown]


class Problem(Gives, frozen=True, omit_defaults=True):
    """RFC 9457. `name`: of the refusal, everywhere the same. `fields`: what is wrong, by field."""

    type: str
    title: str
    status: int
    name: str
    detail: str = ""
    fields: dict[str, str] = {}
    stage: str = ""
