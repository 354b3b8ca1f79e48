"""What every test shares: a clean environment, quiet logs, and real engines that start once a session."""

import logging
import os

import pytest
import structlog

pytest_plugins = ["tests.engines", "tests.bridges", "tests.queue_engines"]


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("TICKGATE_") and "_TEST_" not in name]:
        del os.environ[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.fixture(autouse=True)
def _no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKGATE_SETTINGS_FILE", raising=False)
