"""The one TLS configuration of Parley, and every way in which a handshake is refused, by name.

TLS 1.3 (RFC 8446) with one cipher suite, TLS_AES_128_GCM_SHA256, on both sides; nothing is resumed, so no session outlives its check (a
server keeps none, and OpenSSL's tickets only name what it would have kept); nothing of it can be configured. Servers prove themselves by a
certificate of the cluster CA. A server asks its callers for one only where other servers call; a caller that shows one is checked as
strictly as a server.

A certificate that TLS itself can judge (foreign, expired, damaged) ends the handshake with an alert, so both sides know why. What TLS
cannot judge, the *kind* of server in the certificate's URI, is judged right after it by `check_peer`.
"""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import trio
from OpenSSL import SSL

from net.pki import Identity, Kind, PeerName, PkiUnreadable
from wire.errors import CloseReason, ParleyError

SUITE: Final = b"TLS_AES_128_GCM_SHA256"
FRAMES: Final = b"parley/1"
"""ALPN (RFC 7301) of links that speak `wire.frame`."""
HTTP: Final = b"http/1.1"


class TlsReason(StrEnum):
    """Why a handshake, or the stream after it, was refused."""

    FOREIGN = "certificate-foreign"
    EXPIRED = "certificate-expired"
    NOT_YET_VALID = "certificate-not-yet-valid"
    REFUSED = "certificate-refused"
    REVOKED = "certificate-revoked"
    REQUIRED = "certificate-required"
    WRONG_ROLE = "certificate-wrong-role"
    WRONG_CLUSTER = "certificate-wrong-cluster"
    UNSUPPORTED = "tls-unsupported"
    PROTOCOL = "tls-protocol"
    NOT_TLS = "not-tls"
    TIMEOUT = "handshake-timeout"
    LOST = "handshake-lost"


SENTENCES: Final[dict[TlsReason, str]] = {
    TlsReason.FOREIGN: "The certificate comes from another authority; is this the right cluster, and the right CA file?",
    TlsReason.EXPIRED: "The certificate has expired; renew it with `parley pki renew`, and check the clocks of both machines.",
    TlsReason.NOT_YET_VALID: "The certificate is not valid yet: one of the two clocks is wrong. Check date and time of both machines.",
    TlsReason.REFUSED: "The certificate was refused; look at it with `parley pki show`, and check the clocks of both machines.",
    TlsReason.REVOKED: "The certificate was revoked; enrol this node anew with `parley pki enrol` if that was a mistake.",
    TlsReason.REQUIRED: "Only servers of the cluster may do that; enrol this node with `parley pki enrol`.",
    TlsReason.WRONG_ROLE: "The certificate is valid, but not for this kind of server; enrol it for the right role.",
    TlsReason.WRONG_CLUSTER: "The certificate is valid, but for another cluster.",
    TlsReason.UNSUPPORTED: "The other side offers no TLS 1.3 with TLS_AES_128_GCM_SHA256; update it.",
    TlsReason.PROTOCOL: "The other side broke the TLS protocol.",
    TlsReason.NOT_TLS: "What answered does not speak TLS; is this the right port?",
    TlsReason.TIMEOUT: "The other side did not finish the TLS handshake in time.",
    TlsReason.LOST: "The connection was lost during the TLS handshake.",
}

_CLOSE_REASONS: Final[dict[TlsReason, CloseReason]] = {
    TlsReason.REQUIRED: CloseReason.CERTIFICATE_REQUIRED,
    TlsReason.WRONG_ROLE: CloseReason.CERTIFICATE_WRONG_ROLE,
    TlsReason.REVOKED: CloseReason.CERTIFICATE_REVOKED,
    TlsReason.FOREIGN: CloseReason.CERTIFICATE_REFUSED,
    TlsReason.EXPIRED: CloseReason.CERTIFICATE_REFUSED,
    TlsReason.NOT_YET_VALID: CloseReason.CERTIFICATE_REFUSED,
    TlsReason.REFUSED: CloseReason.CERTIFICATE_REFUSED,
    TlsReason.WRONG_CLUSTER: CloseReason.CERTIFICATE_REFUSED,
}


class TlsRefused(ParleyError, trio.BrokenResourceError):
    """TLS ended for a named reason. `remote`: the other side said so by an alert; otherwise this side found it.

    It is a `trio.BrokenResourceError` too, since a refusal by the server reaches a caller that has a certificate only with its first read.
    """

    name = "tls-refused"

    def __init__(self, reason: TlsReason, *, remote: bool, detail: str = "") -> None:
        super().__init__(detail or SENTENCES[reason])
        self.reason = reason
        self.remote = remote

    def __str__(self) -> str:
        return f"{self.reason}: {self.args[0]}"

    @property
    def close_reason(self) -> CloseReason:
        """The same, in the words of links."""
        return _CLOSE_REASONS.get(self.reason, CloseReason.LOST)


# X509_V_ERR_*, x509_vfy.h: what this side finds in the other's certificate
_FOUND: Final[dict[int, TlsReason]] = {
    2: TlsReason.FOREIGN,  # unable to get issuer certificate
    7: TlsReason.FOREIGN,  # signature failure: the right issuer's name with another key
    9: TlsReason.NOT_YET_VALID,
    10: TlsReason.EXPIRED,
    18: TlsReason.FOREIGN,  # self-signed
    19: TlsReason.FOREIGN,  # self-signed in the chain
    20: TlsReason.FOREIGN,  # unable to get the local issuer
    21: TlsReason.FOREIGN,  # unable to verify the leaf
    30: TlsReason.FOREIGN,  # authority and subject key identifiers differ
    32: TlsReason.FOREIGN,  # the issuer may not sign certificates
}

# the words of OpenSSL after "alert ": what the other side says of us
_ALERTS: Final[dict[str, TlsReason]] = {
    "unknown ca": TlsReason.FOREIGN,
    "certificate expired": TlsReason.EXPIRED,
    "bad certificate": TlsReason.REFUSED,
    "certificate unknown": TlsReason.REFUSED,
    "certificate revoked": TlsReason.REFUSED,
    "unsupported certificate": TlsReason.REFUSED,
    "access denied": TlsReason.REFUSED,
    "certificate required": TlsReason.REQUIRED,
    "protocol version": TlsReason.UNSUPPORTED,
    "handshake failure": TlsReason.UNSUPPORTED,
    "insufficient security": TlsReason.UNSUPPORTED,
    "no application protocol": TlsReason.UNSUPPORTED,
}

# OpenSSL's own words for what this side finds
_LOCAL: Final[dict[str, TlsReason]] = {
    "peer did not return a certificate": TlsReason.REQUIRED,
    "unsupported protocol": TlsReason.UNSUPPORTED,
    "no shared cipher": TlsReason.UNSUPPORTED,
    "no protocols available": TlsReason.UNSUPPORTED,
    "wrong ssl version": TlsReason.UNSUPPORTED,
    "no application protocol": TlsReason.UNSUPPORTED,
    "wrong version number": TlsReason.NOT_TLS,
    "http request": TlsReason.NOT_TLS,
    "https proxy request": TlsReason.NOT_TLS,
    "packet length too long": TlsReason.NOT_TLS,
}


def server_context(identity: Identity, *, ask_peer: bool, alpn: Sequence[bytes] = (FRAMES, HTTP)) -> SSL.Context:
    """For accepting. `alpn`: the protocols of this listener, the first that the caller offers too is chosen; a caller that offers only
    others is refused. `ask_peer`: callers may show a certificate, and then a good one; whether they must is for `check_peer`.

    Raises `PkiUnreadable`.
    """
    context = _context()
    _load(context, identity.ca_path, identity)
    context.set_verify(SSL.VERIFY_PEER if ask_peer else SSL.VERIFY_NONE, _remember_verdict)
    _choose(context, alpn)
    return context


def web_context(certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> SSL.Context:
    """For browsers, under a certificate that they trust (PEM, with its chain) and that is not the cluster's. Raises `PkiUnreadable`."""
    context = _context()
    try:
        context.use_certificate_chain_file(os.fspath(certificate))
        context.use_privatekey_file(os.fspath(key))
        context.check_privatekey()
    except SSL.Error:
        raise PkiUnreadable(f"{certificate} or {key} is missing or damaged, or they do not belong together.") from None
    _choose(context, (HTTP,))
    return context


def client_context(ca_path: str | os.PathLike[str], identity: Identity | None, alpn: bytes = FRAMES) -> SSL.Context:
    """For dialling servers of the cluster whose CA is in `ca_path`; with an identity, as a server oneself. Raises `PkiUnreadable`."""
    context = _context()
    _load(context, Path(ca_path), identity)
    context.set_verify(SSL.VERIFY_PEER, _remember_verdict)
    context.set_alpn_protos([alpn])
    return context


def check_peer(peer: PeerName | None, *, kind: Kind | None, cluster: str | None) -> None:
    """The caller or the called must be a server of this kind and cluster (None: of any). Raises `TlsRefused`."""
    if peer is None:
        raise TlsRefused(TlsReason.REQUIRED, remote=False)
    if kind is not None and peer.kind != kind:
        raise TlsRefused(TlsReason.WRONG_ROLE, remote=False, detail=f"{peer} is no {kind}; enrol it for the right role.")
    if cluster is not None and peer.cluster != cluster:
        raise TlsRefused(TlsReason.WRONG_CLUSTER, remote=False, detail=f"{peer} belongs to another cluster than {cluster}.")


class Verdict:
    """What verification found in the other side's certificate; hangs on the connection as its application data."""

    __slots__ = ("code",)

    def __init__(self) -> None:
        self.code = 0


def refusal(error: SSL.Error, verdict: Verdict) -> TlsRefused:
    """OpenSSL's error in our words."""
    if isinstance(error, SSL.SysCallError):
        return TlsRefused(TlsReason.LOST, remote=True)
    reasons = [str(entry[2]) for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    for text in reasons:
        _, alert, what = text.partition("alert ")
        if alert:
            return TlsRefused(_ALERTS.get(what, TlsReason.PROTOCOL), remote=True)
        if text == "certificate verify failed":
            return TlsRefused(_FOUND.get(verdict.code, TlsReason.REFUSED), remote=False)
        if text in _LOCAL:
            return TlsRefused(_LOCAL[text], remote=False)
    return TlsRefused(TlsReason.PROTOCOL, remote=True, detail=f"{SENTENCES[TlsReason.PROTOCOL]} ({'; '.join(reasons)[:200]})")


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(SUITE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # half the memory of an idle link, at no cost
    return context


def _choose(context: SSL.Context, alpn: Sequence[bytes]) -> None:
    """Of what a caller offers, take the first that is spoken here."""
    spoken = tuple(alpn)

    def choose(_: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in spoken:
            if protocol in offered:
                return protocol
        raise TlsRefused(TlsReason.UNSUPPORTED, remote=False, detail="The caller speaks another protocol.")  # alert no_application_protocol

    context.set_alpn_select_callback(choose)


def _load(context: SSL.Context, ca_path: Path, identity: Identity | None) -> None:
    try:
        context.load_verify_locations(os.fspath(ca_path))
        if identity is not None:
            context.use_certificate_chain_file(os.fspath(identity.cert_path))
            context.use_privatekey_file(os.fspath(identity.key_path))
            context.check_privatekey()
    except SSL.Error:
        which = f"{identity.cert_path}, {identity.key_path} or {ca_path}" if identity else str(ca_path)
        raise PkiUnreadable(f"{which} is missing or damaged, or certificate and key do not belong together.") from None


def _remember_verdict(connection: SSL.Connection, _: object, code: int, __: int, ok: int) -> bool:
    verdict = connection.get_app_data()
    if not ok and isinstance(verdict, Verdict):
        verdict.code = code
    return bool(ok)
