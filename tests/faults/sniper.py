"""`python sniper.py DIRECTORY PREFIX PID`: kill -9 PID the instant a file of DIRECTORY is made or grows.

It looks without a pause and imports next to nothing: the instant it waits for lasts less than a millisecond.
"""

import os
import signal
import sys


def main(directory: str, prefix: str, pid: int) -> None:
    def size() -> int:
        total = 0
        for name in os.listdir(directory):
            if name.startswith(prefix):
                try:
                    total += 1 + os.stat(f"{directory}/{name}").st_size
                except FileNotFoundError:
                    continue
        return total

    before = size()
    while (now := size()) <= before:
        before = now
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
