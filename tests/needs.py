"""What a test needs from the machine. A skip names the Debian package that is missing; in CI nothing is skipped."""

import os
import shutil

import pytest


def needs(*programs: str, package: str) -> None:
    """Go on if the programs are installed. Otherwise skip and say which package brings them; fail if CI is set."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} missing: install the Debian package {package}"
    if os.environ.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(reason)
    pytest.fail(reason)
