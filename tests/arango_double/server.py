"""The documented HTTP protocol: databases, collections, indexes, graphs, documents, stream transactions and cursors.

Transactions have the collections they name as exclusive to themselves, and wait for each other as long as they say.
"""

import asyncio
import base64
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.arango_double.evaluation import run
from tests.arango_double.failures import Refusal, conflict, no_collection, numbered
from tests.arango_double.store import Collection, View

DATABASE = "tickgate"
LOCK_TIMEOUT_S = 5.0
Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Transaction:
    """copies: what it sees in place of the database's."""

    copies: dict[str, Collection]
    names: list[str]


class Server:
    def __init__(self, version: str, user: str, password: str) -> None:
        self.version = version
        self.credentials = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.collections: dict[str, Collection] = {}
        self.graphs: dict[str, Any] = {}
        self.transactions: dict[str, Transaction] = {}
        self.cursors: dict[str, tuple[list[Any], int]] = {}
        self.conflicts = 0
        self.conflict = conflict()
        self._numbers = itertools.count(1)
        self._locks: dict[str, asyncio.Lock] = {}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._envelope], client_max_size=64 * 1024**2)
        base = "/_db/{database}/_api"
        app.add_routes(
            [
                web.get(f"{base}/version", self.told_version),
                web.get(f"{base}/collection", self.listed_collections),
                web.post(f"{base}/collection", self.made_collection),
                web.post(f"{base}/index", self.made_index),
                web.get(f"{base}/gharial/{{name}}", self.told_graph),
                web.post(f"{base}/gharial", self.made_graph),
                web.post(f"{base}/document/{{name}}", self.put_document),
                web.post(f"{base}/transaction/begin", self.begun),
                web.put(f"{base}/transaction/{{id}}", self.committed),
                web.delete(f"{base}/transaction/{{id}}", self.aborted),
                web.post(f"{base}/cursor", self.asked),
                web.post(f"{base}/cursor/{{id}}", self.asked_on),
                web.post("/_double/conflicts", self.set_conflicts),
            ]
        )
        return app

    @web.middleware
    async def _envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not request.path.startswith("/_double/"):
                self._let_in(request)
            return await handler(request)
        except Refusal as e:
            told = {"error": True, "code": e.status, "errorNum": e.number, "errorMessage": e.message}
            return web.json_response(told, status=e.status)

    def _let_in(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != self.credentials:
            raise Refusal(401, 11, "not authorized to execute this request")
        if request.match_info.get("database", DATABASE) != DATABASE:
            raise Refusal(404, 1228, "database not found")

    async def told_version(self, _request: web.Request) -> web.Response:
        return web.json_response({"server": "arango", "license": "community", "version": self.version})

    async def listed_collections(self, _request: web.Request) -> web.Response:
        result = [
            {"id": name, "name": name, "type": 3 if found.edge else 2, "status": 3, "isSystem": False}
            for name, found in self.collections.items()
        ]
        return _fine({"result": result})

    async def made_collection(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["name"] in self.collections:
            raise Refusal(409, 1207, "duplicate name")
        self.collections[asked["name"]] = Collection(asked["name"], edge=asked.get("type") == 3)
        return _fine({"name": asked["name"], "type": asked.get("type", 2)})

    async def made_index(self, request: web.Request) -> web.Response:
        collection = self._collection(request.query["collection"])
        asked = await request.json()
        same = [index for index in collection.indexes if index["name"] == asked["name"]]
        if not same:
            collection.indexes.append(asked)
        told = {"id": f"{collection.name}/{asked['name']}", "isNewlyCreated": not same, **asked}
        return _fine(told, 200 if same else 201)

    async def told_graph(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.graphs:
            raise Refusal(404, 1924, f"graph '{name}' not found")
        return _fine({"graph": self.graphs[name]})

    async def made_graph(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["name"] in self.graphs:
            raise Refusal(409, 1925, "graph already exists")
        for definition in asked["edgeDefinitions"]:
            if not self._collection(definition["collection"]).edge:
                raise Refusal(400, 1218, "not an edge collection")
        self.graphs[asked["name"]] = {**asked, "_key": asked["name"], "orphanCollections": []}
        return _fine({"graph": self.graphs[asked["name"]]}, 202)

    async def put_document(self, request: web.Request) -> web.Response:
        document = await request.json()
        replace = request.query.get("overwriteMode") == "replace"
        kept = self._collection(request.match_info["name"]).put(document, new=not replace)
        told = {name: kept[name] for name in ("_id", "_key", "_rev")}
        return web.json_response({} if request.query.get("silent") else told, status=202)

    async def begun(self, request: web.Request) -> web.Response:
        asked = await request.json()
        held = asked["collections"]
        names = sorted({*held.get("exclusive", []), *held.get("write", [])})
        taken: list[str] = []
        try:
            async with asyncio.timeout(asked.get("lockTimeout") or LOCK_TIMEOUT_S):
                for name in names:
                    self._collection(name)
                    await self._locks.setdefault(name, asyncio.Lock()).acquire()
                    taken.append(name)
        except (TimeoutError, Refusal) as e:
            for name in taken:
                self._locks[name].release()
            if isinstance(e, Refusal):
                raise
            raise Refusal(409, 18, "timeout waiting to lock key") from e
        number = str(next(self._numbers))
        self.transactions[number] = Transaction(
            {name: self.collections[name].copy() for name in names}, names
        )
        return _fine({"result": {"id": number, "status": "running"}}, 201)

    async def committed(self, request: web.Request) -> web.Response:
        number, transaction = self._ended(request)
        self.collections |= transaction.copies
        return _fine({"result": {"id": number, "status": "committed"}})

    async def aborted(self, request: web.Request) -> web.Response:
        number, _ = self._ended(request)
        return _fine({"result": {"id": number, "status": "aborted"}})

    def _ended(self, request: web.Request) -> tuple[str, Transaction]:
        number = request.match_info["id"]
        if number not in self.transactions:
            raise numbered(1655)
        transaction = self.transactions.pop(number)
        for name in transaction.names:
            self._locks[name].release()
        return number, transaction

    async def asked(self, request: web.Request) -> web.Response:
        asked = await request.json()
        collections = self.collections
        if (number := request.headers.get("x-arango-trx-id")) is not None:
            if number not in self.transactions:
                raise numbered(1655)
            if self.conflicts:
                self.conflicts -= 1
                raise self.conflict
            collections = {**self.collections, **self.transactions[number].copies}
        runtime_s = asked.get("options", {}).get("maxRuntime", 0)
        found = run(asked["query"], asked.get("bindVars", {}), View(collections, self.graphs), runtime_s)
        return _fine(self._batch(str(next(self._numbers)), found, asked.get("batchSize", 1_000)), 201)

    async def asked_on(self, request: web.Request) -> web.Response:
        cursor = request.match_info["id"]
        if cursor not in self.cursors:
            raise Refusal(404, 1600, "cursor not found")
        found, size = self.cursors.pop(cursor)
        return _fine(self._batch(cursor, found, size))

    def _batch(self, cursor: str, found: list[Any], size: int) -> dict[str, Any]:
        more = len(found) > size
        if more:
            self.cursors[cursor] = (found[size:], size)
        told = {
            "result": found[:size],
            "hasMore": more,
            "cached": False,
            "extra": {"warnings": [], "stats": {}},
        }
        return {**told, "id": cursor} if more else told

    async def set_conflicts(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.conflicts, self.conflict = asked["times"], numbered(asked["number"])
        return _fine({})

    def _collection(self, name: str) -> Collection:
        if name not in self.collections:
            raise no_collection(name)
        return self.collections[name]


def _fine(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response({"error": False, "code": status, **body}, status=status)
