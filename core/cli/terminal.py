"""How commands print: aligned tables, and progress that is live on a terminal and plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import click

from core.infrastructure.deployment.health import StoreLine

QUIET_S_MAX: Final = 15.0
"""Where no spinner shows life, what is being waited for is said this often."""


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows in aligned columns, never cut off."""
    cells = [tuple(headers), *(tuple("-" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def store_table(stores: Sequence[StoreLine]) -> str:
    """Return the stores in aligned columns; what stands in for one is named."""
    rows = [
        (line.name, line.state, f"{line.latency_ms:.1f} ms", line.problem or line.keeper) for line in stores
    ]
    return table(("store", "state", "answers in", "kept by"), rows)


class Progress:
    """Tells what is being done. On a terminal the current step is a spinner that the next line replaces."""

    def __init__(self) -> None:
        self._live: Any = None
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

            self._live = Console(highlight=False).status("starting")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the spinner away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begun(self, text: str) -> None:
        if self._live is not None:
            self._live.update(_escaped(text))
        elif time.monotonic() - self._said_at > QUIET_S_MAX:
            self.done(text)

    def done(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(f"[green]✓[/green] {_escaped(text)}")
        else:
            click.echo(text)
            sys.stdout.flush()
        self._said_at = time.monotonic()


def _escaped(text: str) -> str:
    """Return text in which rich sees no markup."""
    return text.replace("[", r"\[")
