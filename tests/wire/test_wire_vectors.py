"""The vectors in tests/vectors/wire.json are what the code makes, and they speak of everything."""

import json
import runpy
from pathlib import Path

import msgpack

from wire.control import MESSAGES
from wire.errors import WireError
from wire.frame import HEADER_SIZE

VECTORS = Path(__file__).parent.parent / "vectors"
DOCUMENTS: dict[str, str] = runpy.run_path(str(VECTORS / "generate_wire.py"))["documents"]()
WIRE = json.loads((VECTORS / "wire.json").read_text())


def test_the_vectors_are_what_the_code_makes() -> None:
    for name, text in DOCUMENTS.items():
        assert (VECTORS / name).read_text() == text, "a format changed: say why, then run tests/vectors/generate_wire.py"


def test_every_message_and_every_error_has_a_vector() -> None:
    assert {case["message"] for case in WIRE["control"]} == {message.__name__ for message in MESSAGES}
    refused = {case["refused"] for part in ("frames", "refused", "packets") for case in WIRE[part] if "refused" in case}
    judged_by_links = {"message-unexpected", "flood"}  # legal bytes, at the wrong moment or too often
    assert refused == {error.name for error in WireError.__subclasses__()} - judged_by_links


def test_an_independent_msgpack_reads_the_bodies_as_they_are_written_down() -> None:
    for case in WIRE["control"]:
        body = bytes.fromhex(case["frame"])[HEADER_SIZE:]

        def plain(value: object) -> object:
            if isinstance(value, list):
                return [plain(item) for item in value]
            return {"hex": value.hex()} if isinstance(value, bytes) else value

        assert plain(msgpack.unpackb(body)) == case["body"]
