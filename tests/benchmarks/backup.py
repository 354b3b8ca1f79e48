"""How long a backup and a restore take, against storing the same ticks through the bridge's own inserts.

python -m tests.benchmarks.backup [millions of ticks]
"""

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from core.infrastructure.central_hub import open_hub
from core.infrastructure.provisioning import NewSource, provision
from core.settings import Secret, Settings
from tests.backups import bring_back, empty_databases, make, vault_in
from tests.bridges import SOURCE, TENANT, TOKEN
from tests.contracts.test_tick_store import make_block, put
from tests.engines import new_databases, running_house

BLOCK_ROWS: Final = 200_000
SPAN_MS: Final = 90 * 86_400_000
START_MS: Final = 1_704_067_200_000


def main() -> None:
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-") as directory:
        root = Path(directory)
        root.chmod(0o711)
        with running_house(root / "house") as house:
            settings = new_databases(house)
            blocks = max(1, int(millions * 1e6 / BLOCK_ROWS))
            stored_s = asyncio.run(_store(settings, blocks))
            rows = blocks * BLOCK_ROWS
            print(f"{rows:,} ticks; storing them took {stored_s:.1f} s")
            print(
                f"{'':12} {'backup s':>9} {'verified':>9} {'restore s':>9} {'of storing':>10} {'bytes/tick':>10}"
            )
            for number, (name, secret) in enumerate((("plain", None), ("encrypted", Secret("k" * 32)))):
                vault = vault_in(root / name)
                began = time.perf_counter()
                manifest = make(settings, vault, secret)
                backup_s = time.perf_counter() - began
                target = empty_databases(house, 1 + number)
                began = time.perf_counter()
                bring_back(target, vault, secret)
                restore_s = time.perf_counter() - began
                print(
                    f"{name:12} {backup_s:9.1f} {'yes':>9} {restore_s:9.1f} {restore_s / stored_s:10.2f}"
                    f" {manifest.bytes / rows:10.1f}"
                )
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
            print(f"this process at most {peak:.0f} MB")


async def _store(settings: Settings, blocks: int) -> float:
    await provision(settings, [], [NewSource(name=SOURCE, token=Secret(TOKEN), tenant=TENANT)])
    spent_s = 0.0
    async with open_hub(settings, {"tick_store", "sources"}) as hub:
        await hub["sources"].epoch_of(SOURCE, "install-1")
        for number in range(blocks):
            start_ms = START_MS + SPAN_MS * number // blocks
            block = make_block(BLOCK_ROWS, first_seq=1 + number * BLOCK_ROWS, start_msc=start_ms)
            began = time.perf_counter()
            await put(hub["tick_store"], block)
            spent_s += time.perf_counter() - began
    return spent_s


if __name__ == "__main__":
    main()
