"""How the chair passes: the chain that shows a newcomer who organizes, and what is signed for it. Pure: bytes in, bytes out.

    meeting key ──hand-over──▶ Ana's key ──successors, take-over──▶ Ben's key ──…──▶ the key that signs message 4 of a join

A chain holds entries of the session's log, as they were said on channel 1: each `hand-over` (signed by the key before it, accepted by the
key after it), and for each `take-over` the `successors` entry before it that names its author and key. It is enough for somebody who
knows the meeting key and nothing else of the log. What it cannot show: that there is nothing newer. A former organizer who helps the
operator can show newcomers a shorter chain.

A restarted organizer keeps its key, so it adds nothing.
"""

from crypto.errors import CryptoError
from crypto.signing import SigningKey, verify
from endpoint import log
from endpoint.errors import LogError, WrongOrganizer
from endpoint.rules import LABEL_ACCEPT, LABEL_YIELD, accept_parts
from endpoint.state import State
from wire.ids import SessionId


def follow_chain_untrusted(session: SessionId, key: bytes, chain: list[bytes], named: dict[int, bytes] | None = None) -> bytes:
    """The organizer's Ed25519 key at the chain's end. `key`: at its beginning, the meeting key for who knows nothing else of the log;
    `named`: the successors there, with their keys. Raises WrongOrganizer."""
    at, named = -1, named or {}
    try:
        for content in chain:
            said = log.peek_untrusted(content)
            if not isinstance(said, log.Entry) or said.index <= at:
                raise WrongOrganizer("the chain of organizers does not rise")
            at, fields = said.index, said.fields
            if isinstance(fields, log.HandOver):
                log.read_entry_untrusted(content, key)
                accepted = State(session, key, head=said.previous)
                verify(fields.signing_key, fields.accept, LABEL_ACCEPT, *accept_parts(accepted, fields))
                key, named = fields.signing_key, {}
            elif isinstance(fields, log.Successors):
                log.read_entry_untrusted(content, key)
                named = dict(fields.participants)
            elif isinstance(fields, log.TakeOver) and fields.participant in named:
                log.read_entry_untrusted(content, named[fields.participant])
                key, named = named[fields.participant], {}
            else:
                raise WrongOrganizer("the chain of organizers is broken")
    except (LogError, CryptoError):
        raise WrongOrganizer("the chain of organizers is broken") from None
    return key


def accept(state: State, participant: int, signing: SigningKey, exchange: bytes, previous: bytes, epoch: int) -> bytes:
    """The signature of a member that takes the chair offered at this place (`previous`, `epoch`) of the log."""
    entry = log.HandOver(participant, signing.public, exchange, bytes(log.SIGNATURE_SIZE), epoch)
    return signing.sign(LABEL_ACCEPT, *accept_parts(State(state.session, state.meeting_key, head=previous), entry))


def yields(session: SessionId, signing: SigningKey, take_over: bytes) -> bytes:
    """The former organizer's signature that a take-over (its hash) is accepted."""
    return signing.sign(LABEL_YIELD, session.to_bytes(8, "big"), take_over)
