"""One place for the tokens of all tests, whichever process runs them."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let no test read or write the user's own cache."""
    # Set for the workers of pytest-xdist by the process that starts them; the commands that tests start see it too.
    if not hasattr(config, "workerinput"):
        import tempfile

        config._tokens = tempfile.TemporaryDirectory(prefix="ngpt-lab-tokens-")  # type: ignore[attr-defined]
        os.environ["NGPT_LAB_CACHE"] = config._tokens.name  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take it away."""
    if hasattr(config, "_tokens"):
        config._tokens.cleanup()
