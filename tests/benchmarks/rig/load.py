"""HTTP load: wrk where it is installed, else a small client of raw sockets that costs more of the machine."""

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass

WRK = shutil.which("wrk")
TIMEOUT_S = 30.0
UNLIMITED = {
    "TICKGATE_LIMITS_READ": "1000000000/minute",
    "TICKGATE_LIMITS_AT_ONCE_BY_CALLER_MAX": "1024",
    "TICKGATE_LOG_LEVEL": "info",
}
"""A gateway's settings under load: it counts and logs as ever, but one caller may ask as often as it can."""
_COUNT = re.compile(r"(\d+) requests in")
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_PLACE = re.compile(r"\s(50|99)%\s+([\d.]+)(us|ms|s|m)")
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_LOST = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_MS = {"us": 0.001, "ms": 1.0, "s": 1_000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, sent again and again."""

    port: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of one burst. bad: answers that are no 2xx, and lost ones."""

    answers: int
    rate: float
    p50_ms: float
    p99_ms: float
    bad: int


def describe() -> str:
    return (
        "wrk" if WRK else "a raw socket client, because wrk is not installed: it shares the processors more"
    )


def burst(request: Request, connections: int, seconds: float) -> Burst:
    """Send the request over so many connections at once for so long."""
    return _wrk(request, connections, seconds) if WRK else asyncio.run(_raw(request, connections, seconds))


def _wrk(request: Request, connections: int, seconds: float) -> Burst:
    lines = [f"wrk.method = {request.method!r}"]
    lines += [f"wrk.headers[{name!r}] = {value!r}" for name, value in request.headers.items()]
    if request.body:
        lines.append(f"wrk.body = [==[{request.body.decode()}]==]")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        said = subprocess.run(
            [
                str(WRK),
                "-t1",
                f"-c{connections}",
                f"-d{max(1, round(seconds))}s",
                "--latency",
                f"--timeout={TIMEOUT_S:g}s",
                "-s",
                script.name,
                f"http://127.0.0.1:{request.port}{request.target}",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    places = {place: float(value) * _MS[unit] for place, value, unit in _PLACE.findall(said)}
    bad = int(found[1]) if (found := _BAD.search(said)) else 0
    lost = sum(map(int, found.groups())) if (found := _LOST.search(said)) else 0
    answers, rate = _COUNT.search(said), _RATE.search(said)
    assert answers is not None, said
    assert rate is not None, said
    return Burst(int(answers[1]), float(rate[1]), places["50"], places["99"], bad + lost)


async def _raw(request: Request, connections: int, seconds: float) -> Burst:
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    message = (
        f"{request.method} {request.target} HTTP/1.1\r\nHost: 127.0.0.1:{request.port}\r\n{head}"
        f"Content-Length: {len(request.body)}\r\n\r\n"
    ).encode() + request.body
    until_s = time.perf_counter() + seconds
    spans_ms: list[float] = []
    bad = 0

    async def ask_on() -> None:
        nonlocal bad
        reader, writer = await asyncio.open_connection("127.0.0.1", request.port)
        while time.perf_counter() < until_s:
            started_s = time.perf_counter()
            writer.write(message)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer, re.I)
            await reader.readexactly(int(length[1]) if length else 0)
            spans_ms.append((time.perf_counter() - started_s) * 1e3)
            bad += not answer.startswith(b"HTTP/1.1 2")
        writer.close()

    started_s = time.perf_counter()
    async with asyncio.timeout(seconds + TIMEOUT_S):
        await asyncio.gather(*(ask_on() for _ in range(connections)))
    elapsed_s = time.perf_counter() - started_s
    spans_ms.sort()
    count = len(spans_ms)
    return Burst(count, count / elapsed_s, spans_ms[count // 2], spans_ms[count * 99 // 100], bad)
