"""python -m tests.weaviate_double HTTP_PORT GRPC_PORT [--version V] [--api-key K]"""

import argparse
import asyncio

import grpc
from aiohttp import web
from weaviate.proto.v1 import weaviate_pb2_grpc

from tests.weaviate_double.rest import GRPC_MESSAGE_BYTES_MAX, application
from tests.weaviate_double.service import Service, health_handler
from tests.weaviate_double.store import Store


async def serve(http_port: int, grpc_port: int, version: str, api_key: str) -> None:
    """Serve both halves for ever; the HTTP port opens last."""
    store = Store()
    limits = [
        ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", GRPC_MESSAGE_BYTES_MAX),
    ]
    server = grpc.aio.server(options=limits)
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(Service(store, api_key), server)
    server.add_generic_rpc_handlers((health_handler(),))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    runner = web.AppRunner(application(store, version, api_key), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", http_port).start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("http_port", type=int)
    parser.add_argument("grpc_port", type=int)
    parser.add_argument("--version", default="1.34.0")
    parser.add_argument("--api-key", default="")
    asked = parser.parse_args()
    asyncio.run(serve(asked.http_port, asked.grpc_port, asked.version, asked.api_key))


main()
