"""Evaluates a tree of AQL: each operation takes the rows so far, as variables by name, and gives those that follow."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.arango_double.collation import rank
from tests.arango_double.failures import Refusal, killed, not_bound, syntax, unused
from tests.arango_double.store import View
from tests.arango_double.syntax import Node, Parser

Row = dict[str, Any]


def run(query: str, bound: dict[str, Any], view: View, runtime_s: float = 0) -> list[Any]:
    """Return what a query answers. runtime_s: it is stopped then, 0 for never."""
    operations = Parser(query).query()
    evaluation = Evaluation(bound, view, time.monotonic() + runtime_s if runtime_s else None)
    rows: Iterable[Row] = [{}]
    for operation in operations:
        rows = evaluation.operate(operation, list(rows))
    if unknown := bound.keys() - evaluation.used:
        raise unused(sorted(unknown)[0])
    return [row["return"] for row in rows if "return" in row]


class Evaluation:
    def __init__(self, bound: dict[str, Any], view: View, ends_at: float | None) -> None:
        self.ends_at = ends_at
        self.bound = bound
        self.view = view
        self.used: set[str] = set()

    def operate(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        operation: Callable[[Node, list[Row]], Iterable[Row]] = getattr(self, f"_{node.kind.lower()}")
        if not rows:
            # Nothing is left to do it for, but its parameters are declared all the same.
            self._touch(node)
        return operation(node, rows)

    def _for(self, node: Node, rows: list[Row]) -> Iterator[Row]:
        source, name = node.parts["source"], node.value[0]
        for row in rows:
            for item in self._items(source, row):
                if self.ends_at is not None and time.monotonic() > self.ends_at:
                    raise killed()
                yield {**row, name: item}

    def _items(self, source: Node, row: Row) -> list[Any]:
        is_bound = source.kind == "bind" and source.value.startswith("@@")
        if is_bound or (source.kind == "variable" and source.value not in row):
            return list(self._collection(source).documents.values())
        items = self.value(source, row)
        if not isinstance(items, list):
            raise Refusal(400, 1563, "collection or array expected as operand to FOR loop")
        return items

    def _traverse(self, node: Node, rows: list[Row]) -> Iterator[Row]:
        names = [*node.value, None, None][:3]
        for row in rows:
            for vertex, path in self._walk(node, row):
                edge = path[-1] if path else None
                values = {names[0]: vertex, names[1]: edge, names[2]: {"edges": path}}
                yield {**row, **{name: value for name, value in values.items() if name}}

    def _walk(self, node: Node, row: Row) -> Iterator[tuple[Any, list[Any]]]:
        """Go breadth first and come to each vertex once, however many ways lead there."""
        depths, options = self.value(node.parts["depths"], row), self.value(node.parts["options"], row)
        if options != {"order": "bfs", "uniqueVertices": "global"}:
            raise Refusal(501, 9, "this double walks breadth first, each vertex once")
        near, far = ("_from", "_to") if node.parts["direction"] == "OUTBOUND" else ("_to", "_from")
        graph, start = self.value(node.parts["graph"], row), self.value(node.parts["start"], row)
        if not self.view.has_graph(graph):
            raise Refusal(404, 1924, f"graph '{graph}' not found")
        seen, waiting = {start}, deque([(start, list[Any]())])
        while waiting:
            at, path = waiting.popleft()
            if len(path) in depths and (vertex := self.view.document(at)) is not None:
                yield vertex, path
            if len(path) < depths[-1]:
                for edge in self.view.edges(graph, near, at):
                    if edge[far] not in seen:
                        seen.add(edge[far])
                        waiting.append((edge[far], [*path, edge]))

    def _filter(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        return [row for row in rows if self.value(node.value, row)]

    def _sort(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        def key(row: Row) -> list[Any]:
            return [rank(self.value(part, row)) for part in node.value]

        return sorted(rows, key=key, reverse=node.parts["descending"])

    def _limit(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        return rows[: self.value(node.value, {})]

    def _return(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        found = [self.value(node.value, row) for row in rows]
        if node.parts["distinct"]:
            found = [value for place, value in enumerate(found) if value not in found[:place]]
        return [{"return": value} for value in found]

    def _insert(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        collection = self._collection(node.value)
        return [
            {**row, "NEW": collection.put(self.value(node.parts["document"], row), new=True)} for row in rows
        ]

    def _update(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        collection, changed = self._collection(node.value), []
        for row in rows:
            old = collection.documents[self.value(node.parts["document"], row)["_key"]]
            new = collection.put({**old, **self.value(node.parts["changes"], row)}, new=False)
            changed.append({**row, "OLD": old, "NEW": new})
        return changed

    def _remove(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        collection = self._collection(node.value)
        return [
            {**row, "OLD": collection.documents.pop(self.value(node.parts["document"], row)["_key"])}
            for row in rows
        ]

    def _upsert(self, node: Node, rows: list[Row]) -> Iterable[Row]:
        collection, written = self._collection(node.value), []
        for row in rows:
            search = self.value(node.parts["search"], row)
            old = next((d for d in collection.documents.values() if search.items() <= d.items()), None)
            if old is None:
                new = collection.put(self.value(node.parts["document"], row), new=True)
            else:
                new = collection.put({**old, **self.value(node.parts["changes"], row)}, new=False)
            written.append({**row, "OLD": old, "NEW": new})
        return written

    def _collection(self, node: Node) -> Any:
        name = node.value
        if name.startswith("@@"):
            name = self._bound(name[1:])
        return self.view.collection(name)

    def _bound(self, name: str) -> Any:
        if name not in self.bound:
            raise not_bound(name)
        self.used.add(name)
        return self.bound[name]

    def _touch(self, part: Any) -> None:
        if isinstance(part, Node):
            if isinstance(part.value, str) and part.value.startswith("@"):
                self._bound(part.value[1:])
            for below in (part.value, *part.parts.values()):
                self._touch(below)
        elif isinstance(part, list | dict):
            for below in part.values() if isinstance(part, dict) else part:
                self._touch(below)

    def value(self, node: Node, row: Row) -> Any:
        """Return what an expression is worth in a row."""
        parts = node.parts
        match node.kind:
            case "literal":
                return node.value
            case "bind":
                return self._bound(node.value[1:])
            case "variable":
                if node.value not in row:
                    raise Refusal(404, 1203, f"collection or view not found: {node.value}")
                return row[node.value]
            case "attribute":
                whole = self.value(parts["of"], row)
                return whole.get(node.value) if isinstance(whole, dict) else None
            case "list":
                return [self.value(item, row) for item in node.value]
            case "object":
                return {name: self.value(item, row) for name, item in node.value.items()}
            case "range":
                return list(range(self.value(parts["left"], row), self.value(parts["right"], row) + 1))
            case "AND":
                # Both are looked at, so that every parameter is declared.
                left, right = self.value(parts["left"], row), self.value(parts["right"], row)
                return bool(left) and bool(right)
            case "OR":
                left, right = self.value(parts["left"], row), self.value(parts["right"], row)
                return bool(left) or bool(right)
            case "compare":
                return _compared(node.value, self.value(parts["left"], row), self.value(parts["right"], row))
            case "call":
                return _called(node.value, [self.value(argument, row) for argument in parts["arguments"]])
        raise syntax(f"unexpected {node.kind}")


def _compared(operator: str, left: Any, right: Any) -> bool:
    if operator == "IN":
        return isinstance(right, list) and any(rank(left) == rank(item) for item in right)
    one, other = rank(left), rank(right)
    return {
        "==": one == other,
        "!=": one != other,
        "<": one < other,
        "<=": one <= other,
        ">": one > other,
        ">=": one >= other,
    }[operator]


def _called(name: str, arguments: list[Any]) -> Any:
    if name == "LENGTH" and len(arguments) == 1:
        return len(arguments[0])
    if name == "UNSET" and len(arguments) > 1:
        return {field: value for field, value in arguments[0].items() if field not in arguments[1:]}
    raise Refusal(400, 1540, f"usage of unknown function '{name}()'")
