"""Run a local deployment's engines and nothing else, for work that nobody may see half done."""

from collections.abc import Iterator
from contextlib import contextmanager

from core.infrastructure.config_manager import FILE_VARIABLE, load_settings
from core.infrastructure.deployment import belongings, shutdown, supervision
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.ports import PORT_BASE
from core.infrastructure.deployment.programs import engine_programs
from core.infrastructure.deployment.startup import Progress, Start
from core.infrastructure.deployment.wish import Wish
from core.settings import Settings


class _Engines(Start):
    """A start that ends once the engines are ready."""

    def start(self) -> None:
        tree = belongings.ensure_settings(self._layout, self._wish.port_base)
        self.programs = engine_programs(self._layout, tree)
        supervision.write_config(self._layout, self.programs)
        self._launch(tree)
        self._await_ready(self.programs)


@contextmanager
def engines_alone(layout: Layout, progress: Progress) -> Iterator[Settings]:
    """Start the engines, hand over the settings that reach them, and stop them when the block ends.

    Raises: Unavailable: one does not start.
    """
    port_base = belongings.remembered_port_base(layout) or PORT_BASE
    try:
        _Engines(layout, Wish(port_base=port_base, demo=False), progress).start()
        yield load_settings({FILE_VARIABLE: str(layout.settings_file)})
    finally:
        shutdown.stop_quietly(layout)
