"""python -m tests.arango_double PORT [--version V] [--user U] [--password P]"""

import argparse
import asyncio

from aiohttp import web

from tests.arango_double.server import Server


async def serve(port: int, server: Server) -> None:
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--version", default="3.12.4")
    parser.add_argument("--user", default="tickgate")
    parser.add_argument("--password", default="")
    asked = parser.parse_args()
    asyncio.run(serve(asked.port, Server(asked.version, asked.user, asked.password)))


if __name__ == "__main__":
    main()
