"""Internal: run one embedded engine in this process: `python -m core.cli.engine NAME`."""

import sys
from typing import Final

from core.errors.exceptions import TickgateError
from core.infrastructure.deployment.engines import ENGINES

USAGE: Final = f"usage: python -m core.cli.engine {'|'.join(ENGINES)}"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ENGINES:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    try:
        ENGINES[arguments[0]]()
    except TickgateError as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
