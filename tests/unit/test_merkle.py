"""The Merkle tree of RFC 6962: known roots, a frontier that agrees with the whole, proofs that prove nothing else."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.auditing.merkle import EMPTY, Frontier, included, inclusion, leaf, root_of

# The leaves and roots that certificate transparency implementations are tested with.
LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
}


@pytest.mark.parametrize(("size", "root"), ROOTS.items())
def test_known_trees_have_their_known_roots(size: int, root: str) -> None:
    assert root_of([leaf(data) for data in LEAVES[:size]]).hex() == root


def test_an_empty_tree_has_a_root() -> None:
    assert Frontier().root() == root_of([]) == EMPTY == hashlib.sha256().digest()


@given(st.lists(st.binary(max_size=8), max_size=40), st.integers(0, 40))
def test_a_frontier_that_is_kept_and_taken_up_again_agrees_with_the_whole(
    data: list[bytes], cut: int
) -> None:
    frontier = Frontier()
    for one in data[:cut]:
        frontier.add(one)
    frontier = Frontier(frontier.size, frontier.roots)
    for one in data[cut:]:
        frontier.add(one)
    assert frontier.root() == root_of([leaf(one) for one in data])


@given(st.integers(1, 33), st.data())
def test_a_proof_proves_its_leaf_at_its_place_and_nothing_else(size: int, data: st.DataObject) -> None:
    leaves = [leaf(bytes([number])) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path, root = inclusion(leaves, index), root_of(leaves)
    assert included(root, size, index, leaves[index], path)
    assert not included(root, size, index, leaf(b"other"), path)
    other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index) | st.just(size))
    assert not included(root, size, other, leaves[index], path)
    if path:
        assert not included(root, size, index, leaves[index], path[:-1])
    assert not included(root, size, index, leaves[index], [*path, EMPTY])
