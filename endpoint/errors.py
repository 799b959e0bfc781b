"""Every refusal of an endpoint, by name. Those of the packet layer are in `crypto.errors`, those of links in `wire.errors`.

EndpointError
├── LogError                  what the organizer wrote, or what somebody would have it have written
│   ├── MalformedEntry        entry-malformed
│   ├── ForgedEntry           entry-forged
│   ├── BrokenChain           log-broken        an entry that does not continue ours: withheld, reordered or another history
│   └── IllegalEntry          entry-illegal     signed, in order, and against the rules
├── MessageError              one message of a member is dropped
│   ├── MalformedContent      content-malformed
│   ├── Misdelivered          misdelivered      for another session or member, or one's own
│   ├── WrongFlags            flags-wrong
│   ├── UnknownSender         sender-unknown    not (yet) on the roster
│   ├── LaterIndex            index-later       names log entries that we do not have yet
│   ├── Fork                  fork              its sender was shown another log than we were
│   ├── NoRight               no-right          not allowed at that point of the log
│   ├── NotInOffice           not-in-office     writes the log, and does not organize (yet)
│   ├── MessageTooLarge       content-too-large
│   └── NeedsSnapshot         screen-gap        a screen update that continues nothing we have
├── JoinError
│   ├── WrongSecret           wrong-secret
│   ├── WrongOrganizer        organizer-wrong   not the key that the link names
│   ├── MalformedHandshake    handshake-malformed
│   ├── JoinTimeout           join-timeout
│   │   └── JoinInterrupted   join-interrupted  the chair passed in the middle of it: another ticket is needed
│   ├── JoinBusy              join-busy
│   └── TurnedAway            turned-away
├── SessionOver               session-over
├── TooLong                   text-too-long
├── NotAllowed                not-allowed       this side may not do that now
├── Congested                 congested         the network takes less than is being sent
├── ManagerRefused            (the manager's own name and sentence)
├── ManagerUnreachable        manager-unreachable
├── NoManager                 manager-unknown   neither the link nor this machine says where the meeting is
├── NoRelay                   relay-unreachable
├── MalformedLink             link-malformed
└── NoPassword                password-missing
"""

from typing import ClassVar

from wire.errors import ParleyError


class EndpointError(ParleyError):
    pass


class LogError(EndpointError):
    pass


class MalformedEntry(LogError):
    name: ClassVar[str] = "entry-malformed"
    sentence: ClassVar[str] = "The session's log holds something that cannot be read; update this program, or distrust the organizer."


class ForgedEntry(LogError):
    name: ClassVar[str] = "entry-forged"
    sentence: ClassVar[str] = "Somebody tried to write the session's log in the organizer's name. It was refused."


class BrokenChain(LogError):
    name: ClassVar[str] = "log-broken"
    sentence: ClassVar[str] = "The session's log does not continue what was shown here before: a server may be withholding parts. Join anew."


class IllegalEntry(LogError):
    name: ClassVar[str] = "entry-illegal"
    sentence: ClassVar[str] = "The organizer's program wrote something that the rules do not allow. Leave, and tell the organizer."


class MessageError(EndpointError):
    """`certain`: who sent it is beyond doubt, by its signature; `index`: the log index that it names, if it does."""

    def __init__(self, detail: str = "", *, certain: bool = False, index: int = -1) -> None:
        super().__init__(detail)
        self.certain = certain
        self.index = index


class MalformedContent(MessageError):
    name: ClassVar[str] = "content-malformed"
    sentence: ClassVar[str] = "A member sent something that cannot be read; it was dropped."


class Misdelivered(MessageError):
    name: ClassVar[str] = "misdelivered"
    sentence: ClassVar[str] = "A packet arrived that is for somebody else; it was dropped."


class WrongFlags(MessageError):
    name: ClassVar[str] = "flags-wrong"
    sentence: ClassVar[str] = "A packet lacks what its channel requires (a signature, say); it was dropped."


class UnknownSender(MessageError):
    name: ClassVar[str] = "sender-unknown"
    sentence: ClassVar[str] = "A packet came from somebody who is not on the list; it was dropped."


class LaterIndex(MessageError):
    name: ClassVar[str] = "index-later"
    sentence: ClassVar[str] = (
        "A member knows of something in the session's log that does not arrive here: the organizer or a server withholds it, or the member "
        "lies. Compare the list of members by voice."
    )


class Fork(MessageError):
    name: ClassVar[str] = "fork"
    sentence: ClassVar[str] = (
        "Another member was shown a different history of this session, by the organizer or by a server. Leave, and compare the words by voice."
    )


class NoRight(MessageError):
    name: ClassVar[str] = "no-right"
    sentence: ClassVar[str] = "A member sent what it may not send; it was dropped."


class NotInOffice(MessageError):
    """`passed_over`: it says what is known already."""

    def __init__(self, *, passed_over: bool = False) -> None:
        super().__init__()
        self.passed_over = passed_over

    name: ClassVar[str] = "not-in-office"
    sentence: ClassVar[str] = "Somebody who does not organize this session wrote into its log. It was refused."


class MessageTooLarge(MessageError):
    name: ClassVar[str] = "content-too-large"
    sentence: ClassVar[str] = "A message is larger than its channel allows; it was dropped."


class NeedsSnapshot(MessageError):
    name: ClassVar[str] = "screen-gap"
    sentence: ClassVar[str] = "A part of the screen was skipped; the whole screen is fetched again."


class JoinError(EndpointError):
    pass


class WrongSecret(JoinError):
    name: ClassVar[str] = "wrong-secret"
    sentence: ClassVar[str] = "The secret did not match. Check the password, or paste the whole link again."


class WrongOrganizer(JoinError):
    name: ClassVar[str] = "organizer-wrong"
    sentence: ClassVar[str] = "Whoever answers is not the organizer that your link names. Do not join; tell the organizer by another way."


class MalformedHandshake(JoinError):
    name: ClassVar[str] = "handshake-malformed"
    sentence: ClassVar[str] = "The organizer's answer cannot be read; are both programs of the same version?"


class JoinTimeout(JoinError):
    name: ClassVar[str] = "join-timeout"
    sentence: ClassVar[str] = "The organizer did not answer. It may be away for a moment; try again."


class JoinInterrupted(JoinTimeout):
    name: ClassVar[str] = "join-interrupted"
    sentence: ClassVar[str] = "Somebody else organizes since you were let in, and the list of members did not come before that. Join again."


class JoinBusy(JoinError):
    name: ClassVar[str] = "join-busy"
    sentence: ClassVar[str] = "Too many are joining at this moment; it is tried again by itself."


class TurnedAway(JoinError):
    name: ClassVar[str] = "turned-away"
    sentence: ClassVar[str] = "The organizer does not admit anybody now."


class SessionOver(EndpointError):
    name: ClassVar[str] = "session-over"
    sentence: ClassVar[str] = "The session has ended."


class TooLong(EndpointError):
    name: ClassVar[str] = "text-too-long"
    sentence: ClassVar[str] = "A chat line has at most 4,000 characters; send it in two."


class NotAllowed(EndpointError):
    name: ClassVar[str] = "not-allowed"
    sentence: ClassVar[str] = "That is not allowed to you now; ask the organizer."


class Congested(EndpointError):
    name: ClassVar[str] = "congested"
    sentence: ClassVar[str] = "The network takes less than is being sent; wait a moment."


class ManagerRefused(EndpointError):
    """The manager's own word and sentence."""

    def __init__(self, name: str, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.name = name  # type: ignore[misc]  # the manager names it
        self.sentence = sentence  # type: ignore[misc]
        self.retry_after = retry_after


class ManagerUnreachable(EndpointError):
    name: ClassVar[str] = "manager-unreachable"
    sentence: ClassVar[str] = "The service manager cannot be reached. Is it running, and is its address right?"


class NoManager(EndpointError):
    name: ClassVar[str] = "manager-unknown"
    sentence: ClassVar[str] = "Where is this meeting? Paste its whole link, or name the service manager and its CA (--manager, --ca)."


class NoRelay(EndpointError):
    name: ClassVar[str] = "relay-unreachable"
    sentence: ClassVar[str] = "None of the session's relays can be reached. Check the network; a firewall may be in the way."


class MalformedLink(EndpointError):
    name: ClassVar[str] = "link-malformed"
    sentence: ClassVar[str] = "That is neither a meeting ID like 123-456-789 nor a meeting link. Copy the whole link."


class NoPassword(EndpointError):
    name: ClassVar[str] = "password-missing"
    sentence: ClassVar[str] = "The meeting needs its password: type the words, or paste the whole link."
