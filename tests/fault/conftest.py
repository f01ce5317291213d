"""Makes the checker importable, and says how long the fault tests are: a short version, or the whole one with PRISM_FAULT=full."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="session")
def full() -> bool:
    return os.environ.get("PRISM_FAULT") == "full"
