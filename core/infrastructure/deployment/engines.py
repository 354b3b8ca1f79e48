"""The embedded engines: each becomes the process it is called in."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from core.errors.exceptions import Misconfigured
from core.infrastructure.config_manager import load_settings
from core.infrastructure.deployment.layout import Layout, layout_of
from core.infrastructure.import_manager import resolve

MEMORY_SHARE: Final = 0.5
"""Of the machine's memory, for ClickHouse: more, and the kernel ends a process that does not expect it."""


def _layout() -> Layout:
    data_dir = os.environ.get("TICKGATE_DATA_DIR")
    if not data_dir:
        raise Misconfigured("TICKGATE_DATA_DIR must name the data directory", code="NO_DATA_DIR")
    return layout_of(Path(data_dir))


def run_postgres() -> None:
    settings, layout = load_settings().postgres, _layout()
    engine = resolve("core.adapters.embedded.postgres:EmbeddedPostgres")(
        layout.engine("postgres"), settings.port, settings.user, settings.password.reveal()
    )
    engine.prepare()
    engine.exec()


def run_valkey() -> None:
    settings, layout = load_settings().redis, _layout()
    engine = resolve("core.adapters.embedded.valkey:EmbeddedValkey")(
        layout.engine("valkey"), settings.port, settings.password.reveal()
    )
    engine.prepare()
    engine.exec()


def run_clickhouse() -> None:
    settings, layout = load_settings().clickhouse, _layout()
    resolve("core.adapters.embedded.clickhouse_http:serve")(
        directory=layout.engine("clickhouse"),
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password.reveal(),
        memory_bytes_max=int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
    )


ENGINES: Final[Mapping[str, Callable[[], None]]] = {
    "postgres": run_postgres,
    "valkey": run_valkey,
    "clickhouse": run_clickhouse,
}
