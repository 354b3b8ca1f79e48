"""What every test shares: a clean environment, quiet logs, and real engines that start once a session."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["tests.engines", "tests.bridges", "tests.queue_engines"]


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("TICKGATE_") and "_TEST_" not in name]:
        del os.environ[name]
    keep_quiet()
    # Whoever starts the tests in the background has it ignored, and so would the processes started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_quiet() -> None:
    structlog.reset_defaults()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.fixture(autouse=True)
def _no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKGATE_SETTINGS_FILE", raising=False)


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    """Undo what a command run within a test configures: its log would go to a stream that is closed by then."""
    yield
    keep_quiet()
