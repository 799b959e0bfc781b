"""Every way a link can end or a message can be refused, by name.

    ParleyError                  has `name` (one word, the same in log, metric and message) and `sentence` (what a person can do)
    ├── WireError                the other side broke the protocol: the link closes with the name
    │   ├── MalformedFrame       frame-malformed
    │   ├── FrameTooLarge        frame-too-large
    │   ├── UnknownFrameType     frame-unknown
    │   ├── MalformedMessage     message-malformed
    │   ├── MalformedPacket      packet-malformed
    │   ├── UnexpectedMessage    message-unexpected     legal bytes at the wrong moment
    │   ├── Flood                flood                  more keep-alive than anybody needs
    │   └── UnsupportedVersion   version-unsupported
    ├── LocalMisuse              our own side called something at the wrong moment: a defect, never the peer's doing
    ├── MalformedMeetingId       meeting-id-malformed
    └── LinkClosed               a link ended; `reason` is a `CloseReason`, `remote` says who ended it

Blame is in the type: `WireError` is the peer's, `LocalMisuse` is ours.
"""

from enum import StrEnum
from typing import ClassVar


class CloseReason(StrEnum):
    """Why a link ended. The word goes into the `error` frame, the log and the metric; `SENTENCES` holds what a person reads."""

    LEFT = "left"
    ENDED = "session-ended"
    SHUTDOWN = "server-stopping"
    LOST = "link-lost"
    SILENT = "silent"
    SLOW_READER = "slow-reader"
    FLOOD = "flood"
    FRAME_MALFORMED = "frame-malformed"
    FRAME_TOO_LARGE = "frame-too-large"
    FRAME_UNKNOWN = "frame-unknown"
    MESSAGE_MALFORMED = "message-malformed"
    MESSAGE_UNEXPECTED = "message-unexpected"
    PACKET_MALFORMED = "packet-malformed"
    VERSION_UNSUPPORTED = "version-unsupported"
    HELLO_TIMEOUT = "hello-timeout"
    TOKEN_REFUSED = "token-refused"
    REVOKED = "revoked"
    FORBIDDEN = "forbidden"
    TOO_MANY_LINKS = "too-many-links"
    CERTIFICATE_REQUIRED = "certificate-required"
    CERTIFICATE_WRONG_ROLE = "certificate-wrong-role"
    CERTIFICATE_REFUSED = "certificate-refused"
    CERTIFICATE_REVOKED = "certificate-revoked"
    BUSY = "busy"
    INTERNAL = "internal-error"


SENTENCES: dict[CloseReason, str] = {
    CloseReason.LEFT: "The other side left.",
    CloseReason.ENDED: "The organizer has ended this session.",
    CloseReason.SHUTDOWN: "This server is being stopped; the client tries another one.",
    CloseReason.LOST: "The connection was lost; the client tries again.",
    CloseReason.SILENT: "Nothing was heard for three seconds, so the connection counts as lost.",
    CloseReason.SLOW_READER: "This connection takes less than the session sends; a faster network is needed.",
    CloseReason.FLOOD: "This connection sends more than a participant may.",
    CloseReason.FRAME_MALFORMED: "The other side sent something that is no frame; are both of the same version?",
    CloseReason.FRAME_TOO_LARGE: "The other side sent a frame over the limit of 1 MiB.",
    CloseReason.FRAME_UNKNOWN: "The other side sent a frame of an unknown type; are both of the same version?",
    CloseReason.MESSAGE_MALFORMED: "The other side sent a message that cannot be read; are both of the same version?",
    CloseReason.MESSAGE_UNEXPECTED: "The other side sent a message at a moment when it means nothing.",
    CloseReason.PACKET_MALFORMED: "The other side sent a packet that cannot be read.",
    CloseReason.VERSION_UNSUPPORTED: "The other side speaks another version of the protocol; update the older one.",
    CloseReason.HELLO_TIMEOUT: "The other side connected and did not say who it is in time.",
    CloseReason.TOKEN_REFUSED: "The server does not know this ticket; ask for a new one by joining again.",
    CloseReason.REVOKED: "The organizer has removed this participant from the session.",
    CloseReason.FORBIDDEN: "This participant may not send that.",
    CloseReason.TOO_MANY_LINKS: "This participant has two connections already.",
    CloseReason.CERTIFICATE_REQUIRED: "Only servers of the cluster may do that; enrol this node with `parley pki enrol`.",
    CloseReason.CERTIFICATE_WRONG_ROLE: "The certificate is valid, but not for this kind of server; enrol it for the right role.",
    CloseReason.CERTIFICATE_REFUSED: "The certificate is foreign or expired; look at it with `parley pki show`.",
    CloseReason.CERTIFICATE_REVOKED: "The certificate was revoked; enrol this node anew with `parley pki enrol` if that was a mistake.",
    CloseReason.BUSY: "This server has no room now; the client tries another one.",
    CloseReason.INTERNAL: "Something went wrong on the other side; its log says what.",
}


class ParleyError(Exception):
    """The root. `name` identifies the refusal everywhere; `sentence` tells a person what to do."""

    name: ClassVar[str] = "error"
    sentence: ClassVar[str] = "Something went wrong."

    def __str__(self) -> str:
        detail = super().__str__()
        return f"{self.name}: {detail or self.sentence}"


class WireError(ParleyError):
    """The peer broke the protocol. `reason` is what the link closes with."""

    reason: ClassVar[CloseReason]

    def __init_subclass__(cls) -> None:
        cls.name = cls.reason.value
        cls.sentence = SENTENCES[cls.reason]


class MalformedFrame(WireError):
    reason = CloseReason.FRAME_MALFORMED


class FrameTooLarge(WireError):
    reason = CloseReason.FRAME_TOO_LARGE


class UnknownFrameType(WireError):
    reason = CloseReason.FRAME_UNKNOWN


class MalformedMessage(WireError):
    reason = CloseReason.MESSAGE_MALFORMED


class MalformedPacket(WireError):
    reason = CloseReason.PACKET_MALFORMED


class UnexpectedMessage(WireError):
    reason = CloseReason.MESSAGE_UNEXPECTED


class UnsupportedVersion(WireError):
    reason = CloseReason.VERSION_UNSUPPORTED


class Flood(WireError):
    reason = CloseReason.FLOOD


class LocalMisuse(ParleyError):
    name = "local-misuse"
    sentence = "A defect in this program; please report it."


class MalformedMeetingId(ParleyError):
    name = "meeting-id-malformed"
    sentence = "A meeting ID has nine digits, for example 123-456-789."


class LinkClosed(ParleyError):
    """A link ended. `remote`: the other side said so; otherwise this side found it."""

    name = "link-closed"

    def __init__(self, reason: CloseReason, *, remote: bool, detail: str = "") -> None:
        super().__init__(detail or SENTENCES[reason])
        self.reason = reason
        self.remote = remote

    def __str__(self) -> str:
        return f"{self.reason}: {self.args[0]}"
