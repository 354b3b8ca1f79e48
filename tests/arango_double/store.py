"""Collections, their unique indexes and named graphs, in memory. A transaction works on copies and swaps them in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.arango_double.failures import bad_edge, no_collection, taken

Document = dict[str, Any]


@dataclass
class Collection:
    """revision: grows with every write."""

    name: str
    edge: bool = False
    documents: dict[str, Document] = field(default_factory=dict)
    indexes: list[dict[str, Any]] = field(default_factory=list)
    revision: int = 0

    def copy(self) -> "Collection":
        return Collection(self.name, self.edge, dict(self.documents), self.indexes, self.revision)

    def put(self, document: Document, *, new: bool) -> Document:
        key = document["_key"]
        if new and key in self.documents:
            raise taken(f"in index primary of type primary over '_key'; conflicting key: {key}")
        if self.edge and not all("/" in str(document.get(end, "")) for end in ("_from", "_to")):
            raise bad_edge()
        self._require_unique(document)
        self.revision += 1
        kept = {**document, "_id": f"{self.name}/{key}", "_rev": f"_r{self.revision}"}
        self.documents[key] = kept
        return kept

    def _require_unique(self, document: Document) -> None:
        for index in self.indexes:
            if index.get("unique"):
                values = [document.get(name) for name in index["fields"]]
                for other in self.documents.values():
                    if (
                        other["_key"] != document["_key"]
                        and [other.get(n) for n in index["fields"]] == values
                    ):
                        raise taken(f"in index {index['name']} of type persistent over {index['fields']}")


class View:
    """What a statement sees: the collections of the database, or a transaction's own copies of some."""

    def __init__(self, collections: Mapping[str, Collection], graphs: Mapping[str, Any]) -> None:
        self._collections = collections
        self._graphs = graphs

    def collection(self, name: str) -> Collection:
        if name not in self._collections:
            raise no_collection(name)
        return self._collections[name]

    def document(self, name: str) -> Document | None:
        """Return the document of an `_id`."""
        collection, _, key = name.partition("/")
        return self.collection(collection).documents.get(key)

    def edges(self, graph: str, near: str, at: str) -> Iterator[Document]:
        """Return the edges of a graph whose end `near` is at a vertex."""
        for definition in self._graphs[graph]["edgeDefinitions"]:
            for edge in self.collection(definition["collection"]).documents.values():
                if edge[near] == at:
                    yield edge

    def has_graph(self, name: str) -> bool:
        return name in self._graphs
