"""Nothing is skipped in CI, and a skip says what is missing."""

import pytest

from tests.needs import needs


def test_a_missing_program_skips_by_the_name_of_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program missing: install the Debian package nowhere"):
        needs("sh", "no-such-program", package="nowhere")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nowhere"):
        needs("no-such-program", package="nowhere")
    needs("sh", package="dash")
