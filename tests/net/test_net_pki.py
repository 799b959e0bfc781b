"""The cluster's own CA: names, files, renewal, and what a person is told."""

import doctest
import errno
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from net import pki
from net.pki import Identity, PeerName, PkiExists, PkiNameMalformed, PkiUnreadable, PkiUnwritable
from net.pki_cli import main
from tests.net.cluster import PATIENCE, Cluster


def test_a_node_certificate_says_who_it_is_and_nothing_else_may_be_done_with_it(cluster: Cluster) -> None:
    certificate = cluster.relay.certificate
    assert cluster.relay.name == PeerName("home", "mcs", "relay-1")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["parley://home/mcs/relay-1"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    certificate.verify_directly_issued_by(pki.load_certificate(cluster.ca))


def test_keys_and_their_directories_are_for_their_owner_alone(cluster: Cluster) -> None:
    for directory in (cluster.ca.parent, cluster.relay.cert_path.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert all(not file.name.startswith(".") for file in files), "a temporary file was left behind"


def test_nothing_is_overwritten(cluster: Cluster, tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "ca", "home")
    before = {file: file.read_bytes() for file in (tmp_path / "ca").iterdir()}
    with pytest.raises(PkiExists):
        pki.create_ca(tmp_path / "ca", "home")
    assert {file: file.read_bytes() for file in (tmp_path / "ca").iterdir()} == before
    with pytest.raises(PkiExists, match="renew"):
        pki.enrol(cluster.ca.parent, cluster.relay.cert_path.parent, "mcs", "relay-1", ())


def test_renewing_keeps_names_and_key(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pki.create_ca(tmp_path / "ca", "home")
    old = pki.enrol(tmp_path / "ca", tmp_path / "node", "manager", "manager-1", ("meet.example.org",), days=10)
    key = old.key_path.read_bytes()
    new = pki.renew(tmp_path / "ca", tmp_path / "node", days=90)
    assert new.name == old.name
    assert new.key_path.read_bytes() == key
    assert new.certificate.public_key() == old.certificate.public_key()
    assert new.certificate.serial_number != old.certificate.serial_number
    assert pki.show(new.certificate)["hosts"] == "meet.example.org"
    assert new.certificate.not_valid_after_utc > now + timedelta(days=89)


def test_another_clusters_ca_renews_nothing(cluster: Cluster, tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "ca", "elsewhere")
    with pytest.raises(PkiUnreadable, match="elsewhere"):
        pki.renew(tmp_path / "ca", cluster.relay.cert_path.parent)


def test_no_certificate_outlives_its_ca(tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "ca", "home", now=datetime.now(UTC) - timedelta(days=pki.CA_DAYS - 5))
    node = pki.enrol(tmp_path / "ca", tmp_path / "node", "mcs", "relay-1", ())
    assert node.certificate.not_valid_after_utc == pki.load_certificate(tmp_path / "ca/ca.crt").not_valid_after_utc


def test_expiry_is_warned_of_in_time(cluster: Cluster) -> None:
    certificate = cluster.relay.certificate
    end = certificate.not_valid_after_utc
    assert pki.expiry_warning(certificate, end - timedelta(days=pki.WARN_DAYS, seconds=1)) is None
    soon = pki.expiry_warning(certificate, end - timedelta(days=3, hours=1))
    assert soon is not None
    assert "in 3 days" in soon
    assert "parley pki renew" in soon
    over = pki.expiry_warning(certificate, end)
    assert over is not None
    assert "expired on" in over


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "a b", "ä", "a" * 65, "a\n"])
def test_names_that_would_not_fit_into_a_uri_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PkiNameMalformed):
        pki.create_ca(tmp_path / "ca", name)
    with pytest.raises(PkiNameMalformed):
        pki.enrol(tmp_path, tmp_path / "node", "mcs", name, ())
    assert list(tmp_path.iterdir()) == []


def test_hosts_may_be_international_and_must_be_hosts(tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "ca", "home")
    node = pki.enrol(tmp_path / "ca", tmp_path / "node", "mcs", "relay-1", ("bücher.example", "2001:db8::1"))
    assert pki.show(node.certificate)["hosts"] == "xn--bcher-kva.example, 2001:db8::1"
    with pytest.raises(PkiNameMalformed):
        pki.enrol(tmp_path / "ca", tmp_path / "other", "mcs", "relay-1", ("a..b",))


@given(st.text(max_size=30) | st.text("parley:/homecsng.-", max_size=40))
def test_any_uri_is_a_name_or_malformed(uri: str) -> None:
    try:
        name = PeerName.parse_untrusted(uri)
    except PkiNameMalformed:
        return
    assert str(name) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "parley://home/mcs",
        "parley://home/mcs/a/b",
        "parley://home/technician/a",
        "parley:///mcs/a",
        "https://home/mcs/a",
        "PARLEY://home/mcs/a",
        "parley://home/mcs/a?b",
        "parley://home/mcs/%61",
        "parley://home/mcs/",
    ],
)
def test_a_uri_that_is_nearly_a_name_is_none(uri: str) -> None:
    with pytest.raises(PkiNameMalformed):
        PeerName.parse_untrusted(uri)


def test_what_is_missing_or_damaged_is_said(cluster: Cluster, tmp_path: Path) -> None:
    good = cluster.relay
    (tmp_path / "damaged").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(PkiUnreadable, match="parley pki"):
        Identity(tmp_path / "absent", good.key_path, good.ca_path)
    with pytest.raises(PkiUnreadable, match="no certificate"):
        Identity(tmp_path / "damaged", good.key_path, good.ca_path)
    with pytest.raises(PkiUnreadable, match="names no server"):
        Identity(cluster.ca, good.key_path, good.ca_path)
    with pytest.raises(PkiUnreadable, match="missing or not readable"):
        Identity(good.cert_path, tmp_path / "absent", good.ca_path)
    with pytest.raises(PkiUnreadable):
        pki.enrol(tmp_path, tmp_path / "node", "mcs", "relay-1", ())
    assert "PRIVATE" not in repr(good)


def test_a_full_disk_is_named_and_loses_nothing(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki.create_ca(tmp_path / "ca", "home")
    node = pki.enrol(tmp_path / "ca", tmp_path / "node", "mcs", "relay-1", ())
    before = node.cert_path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PkiUnwritable, match="No space left"):
        pki.renew(tmp_path / "ca", tmp_path / "node")
    assert node.cert_path.read_bytes() == before
    assert {path.name for path in (tmp_path / "node").iterdir()} == {"ca.crt", "node.crt", "node.key"}
    with pytest.raises(PkiUnwritable, match="No space left"):
        pki.create_ca(tmp_path / "other", "home")
    assert list((tmp_path / "other").iterdir()) == []
    with pytest.raises(PkiUnwritable, match="Not a directory"):
        pki.create_ca(node.cert_path / "ca", "home")


def test_the_command_line_from_end_to_end(tmp_path: Path) -> None:
    runner = CliRunner()
    ca, node = str(tmp_path / "ca"), str(tmp_path / "node")

    def parley_pki(*args: str, code: int = 0) -> str:
        result = runner.invoke(main, args)
        assert result.exit_code == code, result.output
        return result.output

    parley_pki("create-ca", ca, "--cluster", "home")
    assert "parley://home/mcs/relay-1" in parley_pki("enrol", ca, node, "--kind", "mcs", "--node", "relay-1", "--host", "localhost")
    assert "pki-exists" in parley_pki("enrol", ca, node, "--kind", "mcs", "--node", "relay-1", code=1)
    assert "valid until" in parley_pki("renew", ca, node, "--days", "5")
    assert "parley pki renew" in parley_pki("show", f"{node}/node.crt")
    shown = json.loads(parley_pki("show", f"{node}/node.crt", "--json"))
    assert shown["name"] == "parley://home/mcs/relay-1"
    assert shown["hosts"] == ["localhost"]
    assert shown["warning"]
    assert "pki-unreadable" in parley_pki("show", f"{node}/node.key", code=1)
    parley_pki("enrol", ca, node, "--kind", "judge", "--node", "x", code=2)


def test_examples_in_docstrings_are_true() -> None:
    assert doctest.testmod(pki).failed == 0


def test_the_module_is_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "net.pki", "--help"], check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert "create-ca" in done.stdout
    assert done.stderr == ""
