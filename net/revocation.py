"""Which certificates count no longer: a CRL (RFC 5280, 5) of the cluster's CA, and who must not be linked to because of it.

`parley pki revoke` writes `ca.crl` beside the CA. The list is signed, so it may reach a server in any way: as a file in its directory, which
is looked at every second, or from another server. The higher number counts. It is kept in the server's directory, so that a restart does not
forget it. A list does not expire: an old one is better than none.

TLS itself accepts a revoked certificate; it is refused right after the handshake by name, `certificate-revoked`, and links that are up
are cut when a new list names them.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import trio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from net.pki import PkiUnreadable, PkiUnwritable, load_certificate, write_file
from net.stream import TlsStream

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the file."""
FILE: Final = "ca.crl"
log = structlog.get_logger()


def serial_of(stream: TlsStream) -> int | None:
    """The serial number of the other side's certificate; None if it showed none."""
    certificate = stream.tls.get_peer_certificate(as_cryptography=True)
    return certificate.serial_number if certificate else None


class Revocations:
    """What one server knows. Owned by it; no call waits but `run`."""

    def __init__(self, directory: Path, on_news: Callable[[], None] = lambda: None) -> None:
        """Reads the list in the directory, if there is one. `on_news`: called when there is a newer one. Raises `PkiUnreadable`."""
        self.number = -1
        self.der = b""
        self._serials: frozenset[int] = frozenset()
        self._path = directory / FILE
        self._on_news: Callable[[], None] = lambda: None  # what is there from the beginning is no news
        self._looked: tuple[int, int] | None = None
        ca = load_certificate(directory / "ca.crt")
        key = ca.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise PkiUnreadable("The CA was not made by `parley pki create-ca`.")
        self._key, self._issuer = key, ca.subject
        self.look()
        self._on_news = on_news

    def __len__(self) -> int:
        return len(self._serials)

    def revoked(self, serial: int | None) -> bool:
        return serial in self._serials

    def learn_untrusted(self, der: bytes) -> bool:
        """A list from anybody. True if it is the CA's and newer than ours; it counts from now on. Raises `PkiUnreadable`."""
        try:
            crl = x509.load_der_x509_crl(der)
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            serials = frozenset(entry.serial_number for entry in crl)
            genuine = crl.issuer == self._issuer and crl.is_signature_valid(self._key)
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound, x509.DuplicateExtension):
            raise PkiUnreadable("What should be a list of revoked certificates is none.") from None
        if not genuine:
            raise PkiUnreadable("The list of revoked certificates was not signed by this cluster's CA.")
        if number <= self.number:
            return False
        self.number, self.der, self._serials = number, der, serials
        log.info("certificates-revoked", number=number, certificates=len(serials))
        self._on_news()
        return True

    async def run(self) -> None:
        """Look at the file for ever."""
        while True:
            await trio.sleep(LOOK_EVERY)
            self.look()

    def keep(self) -> None:
        """Write what came from another server beside the certificate. Where that is not possible, it must come again after a restart."""
        with suppress(PkiUnwritable):
            write_file(self._path, x509.load_der_x509_crl(self.der).public_bytes(Encoding.PEM), replace=True)

    def look(self) -> None:
        """Read the file, if it has changed."""
        try:
            found = self._path.stat()
            if (found.st_mtime_ns, found.st_size) == self._looked:
                return
            self._looked = (found.st_mtime_ns, found.st_size)
            self.learn_untrusted(x509.load_pem_x509_crl(self._path.read_bytes()).public_bytes(Encoding.DER))
        except FileNotFoundError:
            return
        except (OSError, ValueError, PkiUnreadable) as error:
            log.warning("revocations-unreadable", file=str(self._path), why=str(error))
