"""An S3 server of the tests' own, over S3's own protocol."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.engines import free_port


@contextmanager
def running_bucket(name: str) -> Iterator[str]:
    """Run an S3 server with one bucket and lead the environment there; give its address."""
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        assert httpx.put(f"{address}/{name}").status_code == 200
        yield address
    server.stop()
