"""The gRPC half: the client's own service definition, over the same store."""

import struct
import time
import uuid
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from weaviate.proto.v1 import (
    aggregate_pb2,
    base_search_pb2,
    batch_delete_pb2,
    batch_pb2,
    health_weaviate_pb2,
    properties_pb2,
    search_get_pb2,
    tenants_pb2,
    weaviate_pb2_grpc,
)

from tests.weaviate_double.filters import kept
from tests.weaviate_double.ranking import HYBRID_LIMIT_MIN, Ranking, fused, nearest, worded
from tests.weaviate_double.store import Collection, Refused, Store, Stored

RESULTS_MAX = 10_000
RESULTS_DEFAULT = 10


class Service(weaviate_pb2_grpc.WeaviateServicer):
    """Search, batches, tenants and counts. Whatever is refused is an error of unknown code, as there."""

    def __init__(self, store: Store, api_key: str) -> None:
        self._store = store
        self._api_key = api_key

    async def Search(self, request: Any, context: Any) -> Any:
        await self._authenticate(context)
        started = time.perf_counter()
        try:
            collection = self._store.collection(request.collection)
            found = _searched(collection, request)
        except Refused as e:
            await context.abort(grpc.StatusCode.UNKNOWN, str(e))
        results = [_result(collection, stored, request, measure) for stored, measure in found]
        return search_get_pb2.SearchReply(took=time.perf_counter() - started, results=results)

    async def BatchObjects(self, request: Any, context: Any) -> Any:
        await self._authenticate(context)
        errors = []
        for index, one in enumerate(request.objects):
            try:
                vector = _floats(one.vector_bytes) if one.vector_bytes else None
                stored = Stored(id=uuid.UUID(one.uuid), properties=_batched(one.properties), vector=vector)
                self._store.put(one.collection, one.tenant, stored)
            except (Refused, ValueError) as e:
                errors.append(batch_pb2.BatchObjectsReply.BatchError(index=index, error=str(e)))
        return batch_pb2.BatchObjectsReply(errors=errors)

    async def BatchDelete(self, request: Any, context: Any) -> Any:
        await self._authenticate(context)
        try:
            collection = self._store.collection(request.collection)
            shard = collection.shard(request.tenant)
            passes = kept(collection, request.filters)
            doomed = [stored.id for stored in shard.values() if passes(stored)]
        except Refused as e:
            await context.abort(grpc.StatusCode.UNKNOWN, str(e))
        for key in () if request.dry_run else doomed:
            del shard[key]
        return batch_delete_pb2.BatchDeleteReply(matches=len(doomed), successful=len(doomed))

    async def TenantsGet(self, request: Any, context: Any) -> Any:
        await self._authenticate(context)
        try:
            shards = self._store.collection(request.collection).shards
        except Refused as e:
            await context.abort(grpc.StatusCode.UNKNOWN, str(e))
        wanted = set(request.names.values) or set(shards)
        hot = tenants_pb2.TENANT_ACTIVITY_STATUS_HOT
        return tenants_pb2.TenantsGetReply(
            tenants=[tenants_pb2.Tenant(name=name, activity_status=hot) for name in shards if name in wanted]
        )

    async def Aggregate(self, request: Any, context: Any) -> Any:
        await self._authenticate(context)
        try:
            collection = self._store.collection(request.collection)
            count = len(_allowed(collection, request))
        except Refused as e:
            await context.abort(grpc.StatusCode.UNKNOWN, str(e))
        single = aggregate_pb2.AggregateReply.Single(objects_count=count)
        return aggregate_pb2.AggregateReply(single_result=single)

    async def _authenticate(self, context: Any) -> None:
        shown = dict(context.invocation_metadata()).get("authorization")
        if self._api_key and shown != f"Bearer {self._api_key}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthorized: invalid api key")


def health_handler() -> Any:
    """Return the handler of grpc.health.v1.Health/Check."""

    async def check(_request: Any, _context: Any) -> Any:
        serving = health_weaviate_pb2.WeaviateHealthCheckResponse.SERVING
        return health_weaviate_pb2.WeaviateHealthCheckResponse(status=serving)

    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=health_weaviate_pb2.WeaviateHealthCheckRequest.FromString,
        response_serializer=health_weaviate_pb2.WeaviateHealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})


def _searched(collection: Collection, request: Any) -> Ranking:
    """Return what a search finds, each with its distance or score."""
    limit, offset = request.limit or RESULTS_DEFAULT, request.offset
    if limit + offset > RESULTS_MAX:
        raise Refused("query maximum results exceeded")
    allowed = _allowed(collection, request)
    shard = collection.shard(request.tenant)
    if request.HasField("hybrid_search"):
        found = _hybrid(collection, shard, allowed, request.hybrid_search, limit + offset)
    elif request.HasField("near_vector"):
        found = nearest(allowed.values(), _vector(request.near_vector), limit + offset)
    elif request.HasField("bm25_search"):
        asked = request.bm25_search
        found = worded(collection, shard.values(), allowed, asked.query, asked.properties, limit + offset)
    else:
        found = [(stored, 0.0) for stored in _listed(collection, allowed, request)]
    return found[offset : offset + limit]


def _allowed(collection: Collection, request: Any) -> dict[uuid.UUID, Stored]:
    shard = collection.shard(request.tenant)
    if not request.HasField("filters"):
        return dict(shard)
    passes = kept(collection, request.filters)
    return {key: stored for key, stored in shard.items() if passes(stored)}


def _hybrid(
    collection: Collection,
    shard: dict[uuid.UUID, Stored],
    allowed: dict[uuid.UUID, Stored],
    asked: Any,
    limit: int,
) -> Ranking:
    alpha = asked.alpha_param if asked.use_alpha_param else asked.alpha
    candidates = max(limit, HYBRID_LIMIT_MIN)
    near = nearest(allowed.values(), _vector(asked), candidates) if alpha > 0 else []
    by_words = (
        worded(collection, shard.values(), allowed, asked.query, asked.properties, candidates)
        if alpha < 1
        else []
    )
    ranked = asked.fusion_type == base_search_pb2.Hybrid.FUSION_TYPE_RANKED
    return fused(near, by_words, alpha, limit, ranked=ranked)


def _listed(collection: Collection, allowed: dict[uuid.UUID, Stored], request: Any) -> list[Stored]:
    if request.after and (request.sort_by or request.HasField("filters")):
        raise Refused("invalid 'after' filter: cannot be set with sort or where")
    objects = sorted(allowed.values(), key=lambda stored: stored.id)
    for sort in reversed(request.sort_by):
        (name,) = sort.path
        collection.property(name)
        objects.sort(
            key=lambda stored, by=name: _sortable(stored.properties.get(by)), reverse=not sort.ascending
        )
    return [stored for stored in objects if not request.after or str(stored.id) > request.after]


def _sortable(value: Any) -> Any:
    # Weaviate sorts texts without regard to case.
    return value.lower() if isinstance(value, str) else value


def _vector(asked: Any) -> tuple[float, ...]:
    if asked.vector_bytes:
        return _floats(asked.vector_bytes)
    if asked.vectors:
        return _floats(asked.vectors[0].vector_bytes)
    raise Refused("a vector search without a vector")


def _floats(packed: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(packed) // 4}f", packed)


def _batched(properties: Any) -> dict[str, Any]:
    plain: dict[str, Any] = MessageToDict(properties.non_ref_properties)
    return plain


def _result(collection: Collection, stored: Stored, request: Any, measure: float) -> Any:
    wanted: Sequence[str] = list(stored.properties)
    if request.HasField("properties") and not request.properties.return_all_nonref_properties:
        wanted = [name for name in request.properties.non_ref_properties if collection.property(name)]
    fields = {
        name: _value(collection, name, stored.properties[name])
        for name in wanted
        if name in stored.properties
    }
    return search_get_pb2.SearchResult(
        properties=search_get_pb2.PropertiesResult(
            target_collection=collection.name, non_ref_props=properties_pb2.Properties(fields=fields)
        ),
        metadata=_metadata(stored, request, measure),
    )


def _metadata(stored: Stored, request: Any, measure: float) -> Any:
    asked = request.metadata
    near = request.HasField("near_vector")
    scored = request.HasField("hybrid_search") or request.HasField("bm25_search")
    return search_get_pb2.MetadataResult(
        id=str(stored.id),
        id_as_bytes=stored.id.bytes,
        distance=measure if near else 0.0,
        distance_present=near and asked.distance,
        score=measure if scored else 0.0,
        score_present=scored and asked.score,
        creation_time_unix=stored.created_ms,
        creation_time_unix_present=asked.creation_time_unix,
        last_update_time_unix=stored.updated_ms,
        last_update_time_unix_present=asked.last_update_time_unix,
        vector_bytes=struct.pack(f"<{len(stored.vector)}f", *stored.vector)
        if asked.vector and stored.vector
        else b"",
    )


def _value(collection: Collection, name: str, value: Any) -> Any:
    (kind,) = collection.property(name)["dataType"]
    if kind == "int":
        return properties_pb2.Value(int_value=int(value))
    if kind == "number":
        return properties_pb2.Value(number_value=value)
    if kind == "boolean":
        return properties_pb2.Value(bool_value=value)
    return properties_pb2.Value(text_value=value)
