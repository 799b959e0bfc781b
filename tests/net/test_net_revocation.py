"""Revoked certificates: the list, who may make it, and what a server makes of it."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from net import pki
from net.pki_cli import main
from net.revocation import Revocations


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    pki.create_ca(tmp_path / "ca", "home")
    for node in ("relay-a", "relay-b"):
        pki.enrol(tmp_path / "ca", tmp_path / node, "mcs", node, [])
    return tmp_path / "ca"


def der(ca: Path) -> bytes:
    return x509.load_pem_x509_crl((ca / "ca.crl").read_bytes()).public_bytes(Encoding.DER)


def test_G24_a_revoked_name_takes_all_its_certificates(ca: Path) -> None:
    first = pki.Identity.in_directory(ca.parent / "relay-a").certificate.serial_number
    second = pki.renew(ca, ca.parent / "relay-a").certificate.serial_number
    other = pki.Identity.in_directory(ca.parent / "relay-b").certificate.serial_number
    assert {one.serial for one in pki.revoke(ca, "relay-a")} == {first, second}
    known = Revocations(ca.parent / "relay-b")
    assert not known.revoked(first)
    assert known.learn_untrusted(der(ca))
    assert (known.revoked(first), known.revoked(second), known.revoked(other), known.revoked(None)) == (True, True, False, False)
    assert {one.name.node for one in pki.issued(ca) if one.revoked} == {"relay-a"}


def test_a_list_only_grows_and_an_older_one_changes_nothing(ca: Path) -> None:
    pki.revoke(ca, str(ca.parent / "relay-a" / "node.crt"))
    old = der(ca)
    pki.revoke(ca, "mcs/relay-b")
    known = Revocations(ca.parent / "relay-a")
    assert known.learn_untrusted(der(ca))
    assert not known.learn_untrusted(old)
    assert (known.number, len(known)) == (2, 2)


def test_a_list_of_another_authority_is_refused(ca: Path, tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "evil", "home")  # the same name, another key
    pki.enrol(tmp_path / "evil", tmp_path / "x", "mcs", "relay-a", [])
    pki.revoke(tmp_path / "evil", "relay-a")
    known = Revocations(ca.parent / "relay-b")
    with pytest.raises(pki.PkiUnreadable):
        known.learn_untrusted(der(tmp_path / "evil"))
    assert known.number == -1


def test_a_list_is_kept_for_the_next_start(ca: Path) -> None:
    pki.revoke(ca, "relay-a")
    news: list[int] = []
    known = Revocations(ca.parent / "relay-b", lambda: news.append(1))
    known.learn_untrusted(der(ca))
    known.keep()
    assert news == [1]
    assert Revocations(ca.parent / "relay-b").number == 1


def test_a_damaged_file_is_no_reason_not_to_start(ca: Path) -> None:
    (ca.parent / "relay-b" / "ca.crl").write_bytes(b"rubbish")
    assert len(Revocations(ca.parent / "relay-b")) == 0


@given(st.binary(max_size=200))
def test_anything_is_refused_by_one_name(junk: bytes) -> None:
    known = Revocations.__new__(Revocations)
    with pytest.raises(pki.PkiUnreadable):
        known.learn_untrusted(junk)


def test_the_command_says_what_it_did_and_what_to_do_next(ca: Path) -> None:
    run = CliRunner().invoke
    told = run(main, ["revoke", str(ca), "relay-a"])
    assert told.exit_code == 0
    assert "parley://home/mcs/relay-a revoked" in told.output
    assert "ca.crl" in told.output
    assert "revoked" in run(main, ["list", str(ca)]).output
    refused = run(main, ["revoke", str(ca), "relay-z"])
    assert (refused.exit_code, "pki-unknown" in refused.output) == (1, True)
