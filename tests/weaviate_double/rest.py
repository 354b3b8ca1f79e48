"""The REST half: meta, schema, tenants, single objects; and a door for tests at /_double."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.weaviate_double.store import Refused, Store, Stored

GRPC_MESSAGE_BYTES_MAX = 104_858_000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(store: Store, version: str, api_key: str) -> web.Application:
    """Return the application. api_key: what callers must show, empty for nothing."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        shown = request.headers.get("Authorization") == f"Bearer {api_key}"
        if api_key and not shown and request.path.startswith("/v1/") and "/.well-known/" not in request.path:
            return web.json_response({"code": 401, "message": "unauthorized: invalid api key"}, status=401)
        try:
            return await handler(request)
        except Refused as e:
            return web.json_response({"error": [{"message": str(e)}]}, status=e.status)

    served = web.Application(middlewares=[guarded], client_max_size=64 * 1024 * 1024)
    rest = _Rest(store, version)
    served.add_routes(
        [
            web.get("/v1/meta", rest.meta),
            web.get("/v1/.well-known/live", rest.ready),
            web.get("/v1/.well-known/ready", rest.ready),
            web.get("/v1/schema", rest.schema),
            web.post("/v1/schema", rest.create),
            web.get("/v1/schema/{name}", rest.definition),
            web.delete("/v1/schema/{name}", rest.drop),
            web.get("/v1/schema/{name}/tenants", rest.tenants),
            web.post("/v1/schema/{name}/tenants", rest.add_tenants),
            web.delete("/v1/schema/{name}/tenants", rest.drop_tenants),
            web.get("/v1/schema/{name}/tenants/{tenant}", rest.tenant),
            web.post("/v1/objects", rest.insert),
            web.get("/v1/objects/{name}/{id}", rest.read),
            web.put("/v1/objects/{name}/{id}", rest.replace),
            web.delete("/v1/objects/{name}/{id}", rest.delete),
            web.post("/_double/unkeepable", rest.refuse),
        ]
    )
    return served


class _Rest:
    def __init__(self, store: Store, version: str) -> None:
        self._store = store
        self._version = version

    async def meta(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "hostname": f"http://{request.host}",
                "version": self._version,
                "modules": {},
                "grpcMaxMessageSize": GRPC_MESSAGE_BYTES_MAX,
            }
        )

    async def ready(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def schema(self, _request: web.Request) -> web.Response:
        return web.json_response({"classes": [one.definition for one in self._store.collections.values()]})

    async def create(self, request: web.Request) -> web.Response:
        definition = await request.json()
        self._store.create(definition)
        return web.json_response(definition)

    async def definition(self, request: web.Request) -> web.Response:
        return web.json_response(self._store.collection(request.match_info["name"]).definition)

    async def drop(self, request: web.Request) -> web.Response:
        self._store.collections.pop(request.match_info["name"], None)
        return web.Response()

    async def tenants(self, request: web.Request) -> web.Response:
        shards = self._store.collection(request.match_info["name"]).shards
        return web.json_response([{"name": name, "activityStatus": "HOT"} for name in shards])

    async def add_tenants(self, request: web.Request) -> web.Response:
        tenants = await request.json()
        self._store.add_tenants(request.match_info["name"], [one["name"] for one in tenants])
        return web.json_response(tenants)

    async def drop_tenants(self, request: web.Request) -> web.Response:
        for name in await request.json():
            self._store.collection(request.match_info["name"]).shards.pop(name, None)
        return web.Response()

    async def tenant(self, request: web.Request) -> web.Response:
        name = request.match_info["tenant"]
        if name not in self._store.collection(request.match_info["name"]).shards:
            raise Refused("tenant not found", 404)
        return web.json_response({"name": name, "activityStatus": "HOT"})

    async def insert(self, request: web.Request) -> web.Response:
        body = await request.json()
        stored = _stored(uuid.UUID(body["id"]), body)
        self._store.insert(body["class"], body.get("tenant", ""), stored)
        return web.json_response(_shown(body["class"], stored))

    async def read(self, request: web.Request) -> web.Response:
        name, shard, key = self._named(request)
        if key not in shard:
            return web.Response(status=404)
        return web.json_response(_shown(name, shard[key]))

    async def replace(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = request.match_info["name"]
        key, tenant = uuid.UUID(request.match_info["id"]), body.get("tenant", "")
        if key not in self._store.collection(name).shard(tenant):
            raise Refused(f"no object with id '{key}'")
        stored = _stored(key, body)
        self._store.put(name, tenant, stored)
        return web.json_response(_shown(name, stored))

    async def delete(self, request: web.Request) -> web.Response:
        _, shard, key = self._named(request)
        return web.Response(status=204 if shard.pop(key, None) else 404)

    async def refuse(self, request: web.Request) -> web.Response:
        self._store.unkeepable = (await request.json())["word"]
        return web.Response()

    def _named(self, request: web.Request) -> tuple[str, dict[uuid.UUID, Stored], uuid.UUID]:
        name = request.match_info["name"]
        shard = self._store.collection(name).shard(request.query.get("tenant", ""))
        return name, shard, uuid.UUID(request.match_info["id"])


def _stored(key: uuid.UUID, body: dict[str, Any]) -> Stored:
    vector = body.get("vector")
    return Stored(id=key, properties=body.get("properties", {}), vector=tuple(vector) if vector else None)


def _shown(name: str, stored: Stored) -> dict[str, Any]:
    return {
        "class": name,
        "id": str(stored.id),
        "properties": stored.properties,
        "vector": list(stored.vector or ()),
        "creationTimeUnix": stored.created_ms,
        "lastUpdateTimeUnix": stored.updated_ms,
    }
