"""An order-free checksum of ticks that connector and store compute alike: the proof in a certificate.

A row's hash mixes its seq and every field's bits in 64-bit wrapping arithmetic; a set's checksum is the sum of its
rows' hashes modulo 2**64, so it can be kept incrementally and computed by the store in one aggregate.
`core.adapters.clickhouse.certificates` holds the same formula in SQL; a contract test compares the two.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from core.model.ticks import Ticks

# Odd 64-bit constants with well-spread bits; source: the multipliers of splitmix64 and xxHash64.
FIELD_MULTIPLIERS: Final[dict[str, int]] = {
    "time_msc": 0x9E3779B97F4A7C15,
    "bid": 0xBF58476D1CE4E5B9,
    "ask": 0x94D049BB133111EB,
    "last": 0xC2B2AE3D27D4EB4F,
    "volume": 0x165667B19E3779F9,
    "flags": 0x27D4EB2F165667C5,
    "volume_real": 0x85EBCA77C2B2AE63,
}
SEQ_MULTIPLIER: Final = 0xD6E8FEB86659FD93
FINAL_MULTIPLIER: Final = 0xFF51AFD7ED558CCD
FINAL_SHIFT: Final = 32


def row_hashes(rows: Ticks, first_seq: int) -> npt.NDArray[np.uint64]:
    """Return one hash a row; rows[i] has seq first_seq + i.

    The row's `time` is left out: it is `time_msc // 1000` or the row is quarantined.
    """
    seq = np.arange(first_seq, first_seq + len(rows), dtype=np.uint64)
    mixed = seq * np.uint64(SEQ_MULTIPLIER)
    for field, multiplier in FIELD_MULTIPLIERS.items():
        column = np.ascontiguousarray(rows[field])
        bits = column.view(np.uint64) if column.itemsize == 8 else column.astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(29))) + bits * np.uint64(multiplier)
    mixed ^= mixed >> np.uint64(FINAL_SHIFT)
    mixed *= np.uint64(FINAL_MULTIPLIER)
    mixed ^= mixed >> np.uint64(FINAL_SHIFT)
    return mixed


def checksum(rows: Ticks, first_seq: int) -> int:
    """Return the checksum of consecutive rows, 0 <= value < 2**64."""
    return int(row_hashes(rows, first_seq).sum(dtype=np.uint64))
