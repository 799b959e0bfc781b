"""Calls that anybody may make: tickets, and what comes before them."""

from manager import api_types as t
from manager.challenge import BITS, Proof
from manager.desk import MAX_PATIENCE
from manager.errors import RequestMalformed
from manager.hidden import Hidden
from manager.operations.said import ticket_given
from manager.operations.table import WORDS, Call, operation
from wire.ids import MeetingId


@operation("GET", "/health", "Whether the manager and its database answer.", gives=t.Health)
async def health(call: Call) -> object:
    await call.house.desk.healthy()
    return t.Health("ok")


@operation("POST", "/challenges", "A challenge, for who asks a ticket without an invitation.", gives=t.ChallengeMade)
async def make_challenge(call: Call) -> object:
    return t.ChallengeMade(call.house.desk.challenge(), BITS)


@operation(
    "POST",
    "/tickets",
    "A guest's ticket. With the invitation, `wait` holds the call until the meeting opens.",
    takes=t.AskTicket,
    gives=t.TicketGiven,
    query=("wait",),
    example={"meeting_id": 123456789, "invite": "0123456789abcdef"},
)
async def ask_ticket(call: Call) -> object:
    return ticket_given(await call.house.desk.ticket(*_guest(call)))


@operation(
    "POST",
    "/looks",
    "Whether a ticket would be given now. None is taken; it is refused for the same reasons and under the same throttles.",
    takes=t.AskTicket,
    query=("wait",),
    example={"meeting_id": 123456789, "invite": "0123456789abcdef"},
)
async def look(call: Call) -> object:
    await call.house.desk.look(*_guest(call))
    return t.Done()


def _guest(call: Call) -> tuple[MeetingId, Hidden | None, str, float, Proof | None]:
    """Which meeting, with what, from where, and how long the guest waits."""
    patience = float(call.words.get("wait", "0"))
    if patience > MAX_PATIENCE:
        raise RequestMalformed(WORDS["wait"].what)
    body: t.AskTicket = call.body
    invite = None if body.invite is None else Hidden(bytes.fromhex(body.invite))
    proof = None if body.proof is None else Proof(body.proof.challenge, body.proof.nonce)
    return MeetingId(body.meeting_id), invite, call.address, patience, proof


@operation(
    "POST",
    "/password-strength",
    "How guessable a password is. It is not kept.",
    takes=t.Guess,
    gives=t.Rating,
    example={"password": "correct horse 7"},
)
async def rate_password(call: Call) -> object:
    body: t.Guess = call.body
    return t.Rating(*await call.house.entrance.rate(body.password, body.email, body.name))
