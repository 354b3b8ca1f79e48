"""What the code knows of the stores' schemas, and whether a store's is the one that this version can work with."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from core.errors.exceptions import Corrupt, Misconfigured, Unavailable
from core.ports.schemas import SchemaStep

STORES: Final[tuple[str, ...]] = ("postgres", "clickhouse", "redis", "weaviate", "arango")
"""In the order they are migrated: holding PostgreSQL's schema open holds the lock for all."""
STAND_INS: Final[Mapping[str, str]] = {"weaviate": "postgres", "arango": "postgres"}
"""By store, whose steps hold its tables while it is not there."""
EMPTIED: Final = frozenset({"redis"})
"""May be emptied at any moment: where no step is noted, nothing is there that an older version could have left."""


def steps(store: str) -> tuple[SchemaStep, ...]:
    """Return the steps the code knows, by number; `0001_ticks.sql` is step 1, named `ticks`."""
    found = []
    for file in files("core.adapters").joinpath(store, "migrations").iterdir():
        number, _, name = file.name.partition(".")[0].partition("_")
        text = file.read_text()
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(SchemaStep(number=int(number), name=name, sql=text, checksum=checksum))
    return tuple(sorted(found, key=lambda step: step.number))


def pending(store: str, applied: Mapping[int, str]) -> tuple[SchemaStep, ...]:
    """Return what is still to be applied.

    Raises:
        Misconfigured: the store was migrated by a newer version of us (code SCHEMA_NEWER).
        Corrupt: a step was edited after it had been applied (code SCHEMA_EDITED).
    """
    known = steps(store)
    if newer := applied.keys() - {step.number for step in known}:
        raise Misconfigured(
            f"{store} is at step {max(newer)}, this version knows {known[-1].number}; run the newer version",
            code="SCHEMA_NEWER",
        )
    for step in known:
        if applied.get(step.number, step.checksum) != step.checksum:
            raise Corrupt(
                f"{store} step {step.number:04} {step.name} was edited after it had been applied",
                code="SCHEMA_EDITED",
            )
    return tuple(step for step in known if step.number not in applied)


def require_current(store: str, applied: Mapping[int, str]) -> None:
    """Refuse to work with a schema that this version was not made for.

    Raises:
        Unavailable: steps are still to be applied (code SCHEMA_OLDER). Misconfigured, Corrupt: see `pending`.
    """
    if not applied and store in EMPTIED:
        return
    if missing := pending(store, applied):
        count = f"{len(missing)} step{'s' if len(missing) > 1 else ''}"
        raise Unavailable(f"{store} is {count} behind; run `tickgate migrate`", code="SCHEMA_OLDER")
