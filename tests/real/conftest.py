"""Tests of Prism on real servers. They find the end-to-end tests' helpers, and each PrismTestServer is served with real backends."""

import os
import pathlib
import sys

os.environ.setdefault("PRISM_TEST_BACKENDS", "real")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from real_backends import pytest_collection_modifyitems, pytest_configure  # noqa: E402, F401
