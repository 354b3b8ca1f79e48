"""The OpenAPI 3.1 document, made of the route catalogue and the message types, so that it cannot drift from them.

`python -m gateway.openapi > docs/openapi.json` writes the checked-in copy. Source: OpenAPI 3.1.1, JSON Schema 2020-12.
"""

import inspect
import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec

from core.messages.message import Message
from gateway.answers import Problem
from gateway.catalog import ENDPOINTS
from gateway.oauth_requests import FIELDS_MAX, FORM_TYPE
from gateway.openapi_shared import (
    PROBLEMS,
    Json,
    headers_of,
    security_of,
    shared_components,
    statuses_of,
)
from gateway.parameters import wire_of
from gateway.routing import Content, Endpoint

REFERENCE: Final = "#/components/schemas/{name}"
JSON_TYPES: Final = ("application/json", "application/problem+json", "application/health+json", FORM_TYPE)
TEXT: Final = "text/"
FORM: Final[Json] = {"additionalProperties": {"type": "string"}, "maxProperties": FIELDS_MAX}
"""A form holds so many fields at most, each of them a text; those nobody knows are ignored."""
LAST_TAGS: Final = ("health", "docs")
"""What a reader comes for stands before what the house says of itself."""
PATH_PARAMETERS: Final = {"id": "Its id, as it was answered."}
_IN_PATH: Final = re.compile(r"{(\w+)}")
_DESCRIPTION: Final = """Market data, orders and jobs of one tenant.

Times: `time_msc` is the trade server's clock, `utc_ms` is UTC, both epoch milliseconds. Lists are pages: pass
`next_cursor` back as `cursor`. A read that outlasts its caller answers 202 with a job to poll. Refusals are problem
details (RFC 9457) with a stable `code`.
"""


def document(endpoints: Sequence[Endpoint] = ENDPOINTS) -> Json:
    """Return the document of these routes."""
    schemas = _schemas(endpoints)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    names = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(names) == len(set(names)), "operation ids are unique"
    queries = {endpoint.query.__name__ for endpoint in endpoints if endpoint.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tickgate",
            "version": version("tickgate"),
            "summary": "Every tick stored exactly once, every read answered from the store.",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _tags(endpoints).items()],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in sorted(schemas.items()) if name not in queries},
            **shared_components(),
        },
    }


def written(endpoints: Sequence[Endpoint] = ENDPOINTS) -> bytes:
    """Return the document as it is checked in."""
    return json.dumps(document(endpoints), indent=1, ensure_ascii=False).encode() + b"\n"


def _schemas(endpoints: Sequence[Endpoint]) -> Json:
    kinds: list[Any] = [Problem]
    for endpoint in endpoints:
        contents = [*endpoint.answers.values(), *([endpoint.body] if endpoint.body else [])]
        kinds += [content.schema for content in contents if content.schema is not None]
        kinds += [endpoint.query] if endpoint.query is not None else []
    unique = list(dict.fromkeys(kinds))
    schemas = dict(msgspec.json.schema_components(unique, ref_template=REFERENCE)[1])
    for endpoint in endpoints:
        if endpoint.body and endpoint.body.schema and FORM_TYPE in endpoint.body.types:
            schemas[endpoint.body.schema.__name__] |= FORM
    return schemas


def _operation(endpoint: Endpoint, schemas: Json) -> Json:
    text = inspect.cleandoc(endpoint.handler.__doc__ or "")
    summary, _, description = text.partition("\n")
    operation: Json = {
        "operationId": f"{_room(endpoint)}_{endpoint.handler.__name__}",
        "tags": [_room(endpoint)],
        "summary": summary,
        "description": description.strip(),
        "parameters": _parameters(endpoint, schemas),
        "security": security_of(endpoint),
        "responses": _responses(endpoint),
        "x-rate-class": endpoint.rate.value,
        "x-deadline-s": endpoint.deadline_s,
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "description": endpoint.body.description,
            "required": True,
            "content": _content(endpoint.body),
        }
        operation["x-body-bytes-max"] = endpoint.body_bytes_max
    return operation


def _parameters(endpoint: Endpoint, schemas: Json) -> list[Json]:
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARAMETERS.get(name, ""),
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _IN_PATH.findall(endpoint.path)
    ]
    heeded = ("traceparent", *(("Idempotency-Key",) if endpoint.idempotent else ()), *endpoint.headers)
    in_header = [{"$ref": f"#/components/parameters/{name}"} for name in heeded]
    return [*in_path, *(_in_query(endpoint.query, schemas) if endpoint.query else ()), *in_header]


def _in_query(kind: type[Message], schemas: Json) -> list[Json]:
    described = schemas[kind.__name__]
    parameters = []
    for name in kind.__struct_fields__:
        parameter, wire = wire_of(name)
        schema = _asked(described["properties"][name])
        if not wire.defaults:
            schema.pop("default", None)
        row: Json = {
            "name": parameter,
            "in": "query",
            "required": name in described.get("required", ()),
            "description": wire.description,
            "schema": {**schema, **wire.schema} if schema.get("type") == "array" else wire.schema or schema,
        }
        if schema.get("type") == "array":
            row |= {"style": "form", "explode": False}
        if wire.example is not None:
            row["example"] = wire.example
        parameters.append(row)
    return parameters


def _asked(schema: Json) -> Json:
    """Take the null out of a field's schema: a parameter that is not given is left out."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    kept = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    if schema.get("default") is not None:
        kept["default"] = schema["default"]
    return {**kept, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})}


def _responses(endpoint: Endpoint) -> Json:
    shared = {
        status: {"$ref": f"#/components/responses/{PROBLEMS[status].name}"}
        for status in statuses_of(endpoint)
    }
    own = {
        status: {
            "description": answer.description,
            "headers": headers_of(endpoint, answer.headers),
            **({"content": _content(answer)} if answer.types else {}),
        }
        for status, answer in endpoint.answers.items()
    }
    return {str(status): answer for status, answer in sorted({**shared, **own}.items())}


def _content(content: Content) -> Json:
    return {kind: {"schema": _body(content, kind)} for kind in content.types}


def _body(content: Content, kind: str) -> Json:
    if content.schema is not None and kind in JSON_TYPES:
        return {"$ref": REFERENCE.format(name=content.schema.__name__)}
    return {"type": "string"} if kind.startswith(TEXT) else {}


def _tags(endpoints: Sequence[Endpoint]) -> dict[str, str]:
    texts = {}
    for endpoint in endpoints:
        module = sys.modules[endpoint.handler.__module__]
        texts[_room(endpoint)] = (module.__doc__ or "").partition("\n")[0]
    return {name: texts[name] for name in sorted(texts, key=lambda name: name in LAST_TAGS)}


def _room(endpoint: Endpoint) -> str:
    return endpoint.handler.__module__.rpartition(".")[2]


if __name__ == "__main__":
    sys.stdout.buffer.write(written())
