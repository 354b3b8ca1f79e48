"""How long `tickgate up` takes to all-healthy, on an empty directory and again, and what each process then weighs.

Run with `python -m tests.benchmarks.startup`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROUNDS = 3
PORT_BASE = 18_300
TICKGATE = Path(sys.executable).parent / "tickgate"


def tickgate(*arguments: str) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run([TICKGATE, *arguments], capture_output=True, text=True, check=True)
    return time.perf_counter() - started, done.stdout


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="tickgate-bench-"))
    root.chmod(0o711)
    where = ["--data-dir", str(root / "house")]
    up = ["up", "--detach", "--port-base", str(PORT_BASE), *where]
    try:
        first_s, _ = tickgate(*up)
        print(f"first start  {first_s:6.1f} s")
        for _ in range(ROUNDS):
            tickgate("down", *where)
            again_s, _ = tickgate(*up)
            print(f"second start {again_s:6.1f} s")
        processes = json.loads(tickgate("status", "--json", *where)[1])["processes"]
        for process in processes:
            tree = psutil.Process(process["pid"])
            size = sum(one.memory_info().rss for one in (tree, *tree.children(recursive=True)))
            print(f"{process['name']:16} {size / 1e6:6.0f} MB")
    finally:
        subprocess.run([TICKGATE, "down", *where], check=False, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
