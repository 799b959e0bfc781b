"""The documents speak of what is there: links, tests, error names, settings."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import msgspec
import pytest

from crypto.errors import CryptoError
from endpoint.settings import Settings as EndpointSettings
from manager.settings import Settings as ManagerSettings
from mcs.settings import Settings as RelaySettings
from net.tls import TlsReason
from wire.control import MESSAGES
from wire.errors import CloseReason, ParleyError

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def ids(document: Path) -> str:
    return document.name


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


def tables(heading: str) -> set[str]:
    """The words in code type of one section of operating.md."""
    text = (ROOT / "docs" / "operating.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section
    return set(re.findall(r"`([^`]+)`", section))


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= subclasses(child)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in _LINK.findall(document.read_text()):
        found = (document.parent / target) if target else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_tests_that_are_named_exist(document: Path) -> None:
    for file, name in set(_TEST.findall(document.read_text())):
        nodes = ast.walk(ast.parse((ROOT / file).read_text()))
        functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{file}::{name}"


def test_the_threat_model_names_a_test_for_most_of_its_lines() -> None:
    assert len(set(_TEST.findall((ROOT / "docs" / "threat-model.md").read_text()))) >= 50


def test_every_refusal_is_explained() -> None:
    for package in ("wire", "crypto", "net", "mcs", "manager", "endpoint"):
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not module.name.endswith("__main__") and ".migrations." not in module.name:
                importlib.import_module(module.name)
    explained = tables("What each refusal means")
    classes = {kind for root in (ParleyError, CryptoError) for kind in subclasses(root) if kind.__module__.partition(".")[0] != "tests"}
    names = {str(kind.name) for kind in classes} | {str(reason) for reason in CloseReason} | {str(reason) for reason in TlsReason}  # type: ignore[attr-defined]  # both roots have it
    assert names <= explained, sorted(names - explained)


def test_every_setting_is_listed() -> None:
    listed = tables("Settings")
    names = {*ManagerSettings.__struct_fields__, *EndpointSettings.__struct_fields__, *RelaySettings.__dataclass_fields__}
    assert names <= listed, sorted(names - listed)


def test_every_message_is_in_the_protocol_with_its_number() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    for message in MESSAGES:
        (row,) = re.findall(rf"^\| {message.TYPE} \| {message.__name__} \| (.*?) \|", text, re.MULTILINE)
        fields = msgspec.structs.fields(message)
        assert all(re.search(rf"\b{field.name}\b", row) for field in fields) or message.__name__.startswith("Node"), message.__name__


def test_every_vector_is_in_the_protocol() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert all(f"tests/vectors/{path.name}" in text for path in (ROOT / "tests" / "vectors").glob("*.json"))
