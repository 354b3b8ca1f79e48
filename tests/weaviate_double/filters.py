"""Filters as the client sends them over gRPC."""

import operator
from collections.abc import Callable
from typing import Any

from weaviate.proto.v1 import base_pb2

from tests.weaviate_double.store import Collection, Refused, Stored

Kept = Callable[[Stored], bool]
Filters = base_pb2.Filters
COMPARISONS: dict[int, Callable[[Any, Any], bool]] = {
    Filters.OPERATOR_EQUAL: operator.eq,
    Filters.OPERATOR_NOT_EQUAL: operator.ne,
    Filters.OPERATOR_GREATER_THAN: operator.gt,
    Filters.OPERATOR_GREATER_THAN_EQUAL: operator.ge,
    Filters.OPERATOR_LESS_THAN: operator.lt,
    Filters.OPERATOR_LESS_THAN_EQUAL: operator.le,
}


def kept(collection: Collection, asked: Any) -> Kept:
    """Return whether an object passes a filter. Raises: Refused: a property has no index for it."""
    if asked.operator in (Filters.OPERATOR_AND, Filters.OPERATOR_OR):
        parts = [kept(collection, part) for part in asked.filters]
        together = all if asked.operator == Filters.OPERATOR_AND else any
        return lambda stored: together(part(stored) for part in parts)
    if asked.operator == Filters.OPERATOR_NOT:
        (inner,) = (kept(collection, part) for part in asked.filters)
        return lambda stored: not inner(stored)
    return _compared(collection, asked)


def _compared(collection: Collection, asked: Any) -> Kept:
    name = asked.target.property
    value = _value(asked)
    if name == "_id":
        values = value if isinstance(value, list) else [value]
        return lambda stored: str(stored.id) in values
    described = collection.property(name)
    if not described.get("indexFilterable", True):
        raise Refused(f"Filtering by property '{name}' requires an inverted index")
    if asked.operator in (Filters.OPERATOR_CONTAINS_ANY, Filters.OPERATOR_CONTAINS_ALL):
        return lambda stored: stored.properties.get(name) in value
    if asked.operator not in COMPARISONS:
        raise Refused(f"operator {asked.operator} is not supported here")
    if described["dataType"] == ["text"] and described.get("tokenization", "word") != "field":
        raise Refused(f"the double compares texts of tokenization field only, not '{name}'")
    compare = COMPARISONS[asked.operator]
    # The inverted index orders texts by their bytes.
    wanted = value.strip().encode() if isinstance(value, str) else value
    return lambda stored: name in stored.properties and compare(_comparable(stored.properties[name]), wanted)


def _comparable(value: Any) -> Any:
    return value.strip().encode() if isinstance(value, str) else value


def _value(asked: Any) -> Any:
    which = asked.WhichOneof("test_value")
    if which is None:
        raise Refused("a filter without a value")
    value = getattr(asked, which)
    return list(value.values) if which.endswith("_array") else value
