"""A Merkle tree over the events of a stream, as RFC 6962, section 2.1, has it: small proofs for one event.

Leaf: SHA-256(0x00 | data), node: SHA-256(0x01 | left | right). A tree that only grows is kept as its frontier, the
roots of its perfect subtrees from left to right, so that adding to it never reads what is there.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
EMPTY: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


def leaf(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(_LEAF + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


class Frontier:
    """A growing tree. size: its leaves; roots: of its perfect subtrees, the largest first."""

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if size.bit_count() != len(roots):
            raise ValueError("a tree has one perfect subtree for each bit of its size")
        self.size = size
        self.roots = list(roots)

    def add(self, data: bytes) -> None:
        """Append a leaf."""
        joined = leaf(data)
        size = self.size
        while size & 1:
            joined = _node(self.roots.pop(), joined)
            size >>= 1
        self.roots.append(joined)
        self.size += 1

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        if not self.roots:
            return EMPTY
        joined = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            joined = _node(left, joined)
        return joined


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaves that are hashed already."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaves[0]
    half = _split(len(leaves))
    return _node(root_of(leaves[:half]), root_of(leaves[half:]))


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from the leaf at `index`, from 0, to the root, the nearest first."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    if len(leaves) == 1:
        return []
    half = _split(len(leaves))
    if index < half:
        return [*inclusion(leaves[:half], index), root_of(leaves[half:])]
    return [*inclusion(leaves[half:], index - half), root_of(leaves[:half])]


def included(root: bytes, size: int, index: int, hashed: bytes, path: Sequence[bytes]) -> bool:
    """Tell whether `path` proves that the leaf `hashed` is at `index` of the tree. Source: RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return False
    position, last, joined = index, size - 1, hashed
    for sibling in path:
        if not last:
            return False
        if position & 1 or position == last:
            joined = _node(sibling, joined)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            joined = _node(joined, sibling)
        position >>= 1
        last >>= 1
    return not last and joined == root


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1
