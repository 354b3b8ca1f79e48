"""`tickgate logs`: show what the programs wrote."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from core.cli.options import data_dir_option
from core.errors.exceptions import NotFound
from core.infrastructure.deployment.layout import Layout, layout_of
from core.infrastructure.deployment.log_files import tail_of

POLL_S: Final = 0.2
LINES: Final = 50
LINES_MAX: Final = 100_000


@click.command(short_help="Show what the programs wrote.")
@click.argument("name", required=False)
@data_dir_option
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@click.option("-n", "--lines", type=click.IntRange(0, LINES_MAX), default=LINES, show_default=True)
def command(*, name: str | None, data_dir: Path | None, follow: bool, lines: int) -> int:
    """Show the end of the log of program NAME, or of all of them."""
    files = _files(layout_of(data_dir), name)
    prefixes = {path: f"{path.stem}: " if len(files) > 1 else "" for path in files}
    for path in files:
        for line in tail_of(path, lines):
            click.echo(f"{prefixes[path]}{line}")
    if follow:
        for path, line in _follow(files):
            click.echo(f"{prefixes[path]}{line}")
    return 0


def _files(layout: Layout, name: str | None) -> list[Path]:
    """Return the logs asked for. Raises: NotFound; the text names those that are there."""
    files: Mapping[str, Path] = {path.stem: path for path in sorted(layout.logs.glob("*.log"))}
    if not files:
        raise NotFound(f"there are no logs in {layout.logs}; start with `tickgate up`")
    if name is None:
        return list(files.values())
    if name not in files:
        raise NotFound(f"no log named {name!r}; there are: {', '.join(files)}")
    return [files[name]]


def _follow(files: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield lines as they are written, across rotation, until interrupted."""
    places = {path: path.stat().st_size for path in files}
    while True:
        for path in files:
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue  # between the two steps of a rotation
            if size < places[path]:
                places[path] = 0
            with path.open("rb") as file:
                file.seek(places[path])
                text = file.read()
            complete = text[: text.rfind(b"\n") + 1]
            places[path] += len(complete)
            for line in complete.decode(errors="replace").splitlines():
                yield path, line
        time.sleep(POLL_S)
