"""The vectors in tests/vectors are what the code makes, byte for byte: a format cannot change unnoticed."""

import runpy
from pathlib import Path

import pytest

VECTORS = Path(__file__).parent.parent / "vectors"
DOCUMENTS: dict[str, str] = runpy.run_path(str(VECTORS / "generate_crypto.py"))["documents"]()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_vectors_are_what_the_code_makes(name: str) -> None:
    assert (VECTORS / name).read_text() == DOCUMENTS[name], "a format changed: say why, then run tests/vectors/generate_crypto.py"


def test_no_vector_is_left_over() -> None:
    assert {path.name for path in VECTORS.glob("crypto-*.json")} == set(DOCUMENTS)
