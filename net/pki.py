"""The cluster's own certificate authority: who is a server of this cluster, and of which kind.

A cluster has one CA. It enrols each server under a name that stands in the certificate as a URI (RFC 5280, 4.2.1.6):

    parley://CLUSTER/mcs/NODE          a relay
    parley://CLUSTER/manager/NODE      a manager

That URI is the identity: whoever dials a server checks the chain and this name, so a valid certificate of the wrong kind is refused. Host
names stand beside it for browsers and other HTTPS clients. All keys are ECDSA P-256; they are written once, mode 0600, and never leave
their directory.

    CA directory      ca.crt  ca.key  ca.crl  issued/SERIAL.crt
    node directory    ca.crt  node.crt  node.key  ca.crl

`python -m net.pki` is `parley pki`.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wire.errors import ParleyError

Kind = Literal["mcs", "manager"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
SCHEME: Final = "parley"
CA_DAYS: Final = 3650
NODE_DAYS: Final = 90
WARN_DAYS: Final = 21
"""From here on `expiry_warning` speaks."""
BACKDATED: Final = timedelta(hours=1)
"""How far a new certificate reaches back, for machines whose clock is a little slow."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class PkiError(ParleyError):
    name = "pki-error"


class PkiNameMalformed(PkiError):
    name = "pki-name-malformed"
    sentence = "Names of clusters and nodes have 1 to 64 letters, digits, dots and dashes, with a letter or digit at both ends."


class PkiExists(PkiError):
    name = "pki-exists"
    sentence = "There is a certificate already; nothing was changed. Choose another directory, or use `parley pki renew`."


class PkiUnreadable(PkiError):
    name = "pki-unreadable"
    sentence = "A certificate or key is missing or damaged; create it with `parley pki create-ca` and `parley pki enrol`."


class PkiUnwritable(PkiError):
    name = "pki-unwritable"
    sentence = "A certificate or key cannot be written; nothing that was there is lost. Make room, or choose another directory."


class PkiUnknown(PkiError):
    name = "pki-unknown"
    sentence = "This CA has issued no certificate to a server of that name; `parley pki list` shows all."


class PeerName(NamedTuple):
    """Who a server is, as its certificate says."""

    cluster: str
    kind: Kind
    node: str

    def __str__(self) -> str:
        return f"{SCHEME}://{self.cluster}/{self.kind}/{self.node}"

    @classmethod
    def parse_untrusted(cls, uri: str) -> "PeerName":
        """The name in a URI. Raises `PkiNameMalformed`.

        >>> PeerName.parse_untrusted("parley://home/mcs/relay-1")
        PeerName(cluster='home', kind='mcs', node='relay-1')
        """
        scheme, separator, rest = uri.partition("://")
        parts = rest.split("/")
        if scheme != SCHEME or not separator or len(parts) != 3:
            raise PkiNameMalformed
        cluster, kind, node = parts
        if not (_NAME.fullmatch(cluster) and _NAME.fullmatch(node)):
            raise PkiNameMalformed
        match kind:
            case "mcs" | "manager":
                return cls(cluster, kind, node)
            case _:
                raise PkiNameMalformed


def peer_name_of(certificate: x509.Certificate) -> PeerName | None:
    """The one server name in a certificate; None if it names no server, or more than one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    try:
        return PeerName.parse_untrusted(uris[0]) if len(uris) == 1 else None
    except PkiNameMalformed:
        return None


@dataclass(frozen=True, slots=True, init=False)
class Identity:
    """A server's certificate, the way to its key, and the CA that it trusts.

    Reads and checks the certificate and the CA at once; raises `PkiUnreadable`. The key is read by `net.tls` alone.
    """

    cert_path: Path
    key_path: Path
    ca_path: Path
    name: PeerName
    certificate: x509.Certificate

    def __init__(self, cert_path: str | os.PathLike[str], key_path: str | os.PathLike[str], ca_path: str | os.PathLike[str]) -> None:
        certificate = load_certificate(Path(cert_path))
        load_certificate(Path(ca_path))
        name = peer_name_of(certificate)
        if name is None:
            raise PkiUnreadable(f"{cert_path} names no server of a cluster; enrol this node with `parley pki enrol`.")
        if not os.access(key_path, os.R_OK):
            raise PkiUnreadable(f"{key_path} is missing or not readable for this user.")
        for field, value in (
            ("cert_path", Path(cert_path)),
            ("key_path", Path(key_path)),
            ("ca_path", Path(ca_path)),
            ("name", name),
            ("certificate", certificate),
        ):
            object.__setattr__(self, field, value)

    @classmethod
    def in_directory(cls, directory: str | os.PathLike[str]) -> "Identity":
        """The identity that `enrol` wrote there."""
        where = Path(directory)
        return cls(where / "node.crt", where / "node.key", where / "ca.crt")


def load_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a PEM file. Raises `PkiUnreadable`."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise PkiUnreadable(f"{path} cannot be read ({error.strerror}); create it with `parley pki`.") from None
    except ValueError:
        raise PkiUnreadable(f"{path} is no certificate.") from None


def create_ca(directory: str | os.PathLike[str], cluster: str, *, now: datetime | None = None) -> Path:
    """A fresh cluster CA; the path of its certificate. Raises `PkiExists`, `PkiNameMalformed`, `PkiUnwritable`."""
    if not _NAME.fullmatch(cluster):
        raise PkiNameMalformed
    where = Path(directory)
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster), x509.NameAttribute(NameOID.COMMON_NAME, "Parley cluster CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _make_private(where)
    write_file(where / "ca.key", _key_pem(key))  # the key first: without it the certificate would be of no use
    write_file(where / "ca.crt", _pem(certificate))
    return where / "ca.crt"


def enrol(
    ca_directory: str | os.PathLike[str],
    out_directory: str | os.PathLike[str],
    kind: Kind,
    node: str,
    hosts: Sequence[str],
    *,
    days: int = NODE_DAYS,
    now: datetime | None = None,
) -> Identity:
    """A new key and certificate for one server, valid for `days` days, also for these host names and addresses.

    Raises `PkiExists`, `PkiUnreadable`, `PkiUnwritable`, `PkiNameMalformed`.
    """
    if not _NAME.fullmatch(node) or kind not in KINDS:
        raise PkiNameMalformed
    ca, ca_key = _load_ca(Path(ca_directory))
    where = Path(out_directory)
    if (where / "node.crt").exists():
        raise PkiExists(f"{where / 'node.crt'} exists; use `parley pki renew`, or another directory.")
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(PeerName(cluster_of(ca), kind, node)))]
    names += [_host_name(host) for host in hosts]
    certificate = _issue(ca, ca_key, key.public_key(), names, node, days, now or datetime.now(UTC))
    _make_private(where)
    write_file(where / "node.key", _key_pem(key))
    write_file(where / "ca.crt", _pem(ca), replace=True)
    _keep_issued(Path(ca_directory), certificate)
    write_file(where / "node.crt", _pem(certificate))
    return Identity.in_directory(where)


def renew(
    ca_directory: str | os.PathLike[str], out_directory: str | os.PathLike[str], *, days: int = NODE_DAYS, now: datetime | None = None
) -> Identity:
    """The same server, names and key, for another `days` days. The certificate is replaced in one step, so a server that starts
    meanwhile finds the old pair or the new one. Raises `PkiUnreadable`, `PkiUnwritable`."""
    ca, ca_key = _load_ca(Path(ca_directory))
    old = Identity.in_directory(out_directory)
    if old.name.cluster != cluster_of(ca):
        raise PkiUnreadable(f"{old.cert_path} belongs to the cluster {old.name.cluster}, the CA to {cluster_of(ca)}.")
    names = list(old.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    public_key = old.certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise PkiUnreadable(f"{old.cert_path} was not made by `parley pki`.")
    certificate = _issue(ca, ca_key, public_key, names, old.name.node, days, now or datetime.now(UTC))
    _keep_issued(Path(ca_directory), certificate)
    write_file(old.cert_path, _pem(certificate), replace=True)
    return Identity.in_directory(out_directory)


class Issued(NamedTuple):
    """A certificate that the CA has issued."""

    name: PeerName
    serial: int
    valid_until: datetime
    revoked: bool


def issued(ca_directory: str | os.PathLike[str]) -> list[Issued]:
    """What a CA has issued, by name. Raises `PkiUnreadable`."""
    where = Path(ca_directory)
    load_certificate(where / "ca.crt")
    revoked = {entry.serial_number for entry in _load_crl(where) or ()}
    found = []
    for path in sorted((where / "issued").glob("*.crt")):
        certificate = load_certificate(path)
        if (name := peer_name_of(certificate)) is not None:
            serial = certificate.serial_number
            found.append(Issued(name, serial, certificate.not_valid_after_utc, serial in revoked))
    return sorted(found, key=lambda one: (one.name, one.valid_until))


def revoke(ca_directory: str | os.PathLike[str], what: str, *, now: datetime | None = None) -> list[Issued]:
    """Write a new `ca.crl` that lists, besides what it listed, every certificate of a server: a node's name, or a certificate file. Returns
    those. Raises `PkiUnknown`, `PkiUnreadable`, `PkiUnwritable`."""
    where = Path(ca_directory)
    ca, ca_key = _load_ca(where)
    now = now or datetime.now(UTC)
    if Path(what).is_file():
        certificate = load_certificate(Path(what))
        if certificate.issuer != ca.subject or (name := peer_name_of(certificate)) is None:
            raise PkiUnknown
        doomed = [Issued(name, certificate.serial_number, certificate.not_valid_after_utc, True)]
    else:
        doomed = [
            one._replace(revoked=True) for one in issued(where) if what in (one.name.node, f"{one.name.kind}/{one.name.node}", str(one.name))
        ]
    if not doomed:
        raise PkiUnknown
    former = _load_crl(where)
    number = former.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1 if former else 1
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject).last_update(now - BACKDATED)
    builder = builder.next_update(ca.not_valid_after_utc).add_extension(x509.CRLNumber(number), critical=False)
    dates = {entry.serial_number: entry.revocation_date_utc for entry in former or ()}
    dates.update((one.serial, now) for one in doomed if one.serial not in dates)
    for serial, date in dates.items():
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(date).build())
    write_file(where / "ca.crl", builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), replace=True)
    return doomed


def show(certificate: x509.Certificate) -> dict[str, str]:
    """What a person wants to know of a certificate, in the order in which to print it."""
    name = peer_name_of(certificate)
    return {
        "name": str(name) if name else "-",
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "hosts": ", ".join(hosts_of(certificate)) or "-",
        "valid_from": certificate.not_valid_before_utc.isoformat(),
        "valid_until": certificate.not_valid_after_utc.isoformat(),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses in it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(general.value) for general in names if not isinstance(general, x509.UniformResourceIdentifier)]


def expiry_warning(certificate: x509.Certificate, now: datetime) -> str | None:
    """A sentence from `WARN_DAYS` days before the end on; None while there is nothing to do."""
    left = certificate.not_valid_after_utc - now
    if left > timedelta(days=WARN_DAYS):
        return None
    until = certificate.not_valid_after_utc.date().isoformat()
    if left <= timedelta(0):
        return f"The certificate expired on {until}; every other server refuses it. Run `parley pki renew`."
    return f"The certificate expires on {until}, in {left.days} days; run `parley pki renew` before."


def cluster_of(ca: x509.Certificate) -> str:
    """The cluster that a CA certificate stands for. Raises `PkiUnreadable`."""
    names = ca.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if len(names) != 1:
        raise PkiUnreadable("The CA certificate names no cluster; it was not made by `parley pki create-ca`.")
    return str(names[0].value)


def _issue(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    names: Sequence[x509.GeneralName],
    node: str,
    days: int,
    now: datetime,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
        .issuer_name(ca.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + timedelta(days=days), ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode("ascii"))
    except (UnicodeError, ValueError):
        raise PkiNameMalformed(f"{host!r} is neither a host name nor an address.") from None


def _load_ca(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = load_certificate(directory / "ca.crt")
    path = directory / "ca.key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise PkiUnreadable(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError):
        raise PkiUnreadable(f"{path} is no key.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiUnreadable(f"{path} was not made by `parley pki create-ca`.")
    return certificate, key


def _load_crl(directory: Path) -> x509.CertificateRevocationList | None:
    path = directory / "ca.crl"
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PkiUnreadable(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError:
        raise PkiUnreadable(f"{path} is no list of revoked certificates.") from None


def _keep_issued(ca_directory: Path, certificate: x509.Certificate) -> None:
    """A copy of every certificate, so that a lost server can be revoked by its name."""
    _make_private(ca_directory / "issued")
    write_file(ca_directory / "issued" / f"{certificate.serial_number:040x}.crt", _pem(certificate), replace=True)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
    except OSError as error:
        raise _unwritable(directory, error) from None


def write_file(path: Path, content: bytes, *, replace: bool = False) -> None:
    """The whole content or nothing, mode 0600. Raises `PkiExists` unless `replace`, `PkiUnwritable`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise PkiExists(f"{path} exists; nothing was changed.") from None
    except OSError as error:  # the disk is full, say
        raise _unwritable(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _unwritable(path: Path, error: OSError) -> PkiUnwritable:
    return PkiUnwritable(
        f"{path} cannot be written ({error.strerror}); nothing that was there is lost. Make room, or choose another directory."
    )


if __name__ == "__main__":
    from net.pki_cli import main

    main()
