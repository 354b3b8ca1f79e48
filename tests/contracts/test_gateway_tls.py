"""The gateway over TLS, where HTTP/2 is spoken: what is announced, what is bounded, what ends a connection."""

import datetime
import ipaddress
import itertools
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests import gateways, http2
from tests.engines import House, listens, wait_for
from tests.gateways import FrontDoor
from tests.http2 import Connection

OK = b"\x88"
REFUSED_STREAM = 7
ENHANCE_YOUR_CALM = 11
STREAMS_MAX = 64
HEAD_BYTES_MAX = 64 * 1024


def certify(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "certificate.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certify(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def door(
    house: House, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontDoor]:
    door = gateways.build(
        tmp_path_factory.mktemp("tls"),
        house,
        redis_database=8,
        tls_certificate_file=str(certificate[0]),
        tls_key_file=str(certificate[1]),
    )
    with gateways.gateway_alone(door, lambda: listens(door.settings.gateway.port)):
        yield door


@pytest.fixture
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture
def http_2(door: FrontDoor, trusting: ssl.SSLContext) -> Iterator[Connection]:
    with Connection(door.settings.gateway.port, trusting) as connection:
        yield connection


def test_transport_security_is_announced_over_tls(door: FrontDoor, trusting: ssl.SSLContext) -> None:
    with httpx.Client(verify=trusting, base_url=f"https://localhost:{door.settings.gateway.port}") as http:
        for path in ("/livez", "/nowhere", "/v1/ticks"):
            assert http.get(path).headers["strict-transport-security"].startswith("max-age=")


def test_versions_below_1_3_are_not_spoken(door: FrontDoor, trusting: ssl.SSLContext) -> None:
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", door.settings.gateway.port), timeout=10) as raw,
        pytest.raises(ssl.SSLError),
    ):
        trusting.wrap_socket(raw, server_hostname="localhost")


def test_http_in_the_clear_is_not_answered(door: FrontDoor) -> None:
    with socket.create_connection(("127.0.0.1", door.settings.gateway.port), timeout=10) as raw:
        raw.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/" not in raw.recv(65_536)


def test_http_2_is_answered(http_2: Connection) -> None:
    http_2.request(1, http2.get())
    headers, body = http_2.answer(1)
    assert headers[:1] == OK
    assert body == b"alive\n"


def test_the_limits_are_told(http_2: Connection) -> None:
    told = next(one.payload for one in http_2.frames() if one.kind == http2.SETTINGS and not one.flags)
    pairs = [told[i : i + 6] for i in range(0, len(told), 6)]
    settings = {int.from_bytes(pair[:2]): int.from_bytes(pair[2:]) for pair in pairs}
    assert settings[http2.MAX_CONCURRENT_STREAMS] == STREAMS_MAX
    assert settings[http2.MAX_HEADER_LIST_SIZE] == HEAD_BYTES_MAX


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (http2.get(authority=b"rebound.example"), b"NOT_OUR_HOST"),
        (http2.get(b"/livez", b"localhost", (b"host", b"rebound.example")), b"NOT_OUR_HOST"),
        (http2.block((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/livez")), b"BAD_HOST"),
        (http2.get(b"/livez%00"), b"NO_SUCH_ROUTE"),
        (http2.get(b"/../metrics"), b"NO_SUCH_ROUTE"),
    ],
)
def test_what_is_refused_in_http_1_is_refused_here(http_2: Connection, headers: bytes, code: bytes) -> None:
    http_2.request(1, headers)
    assert code in http_2.answer(1)[1]


@pytest.mark.parametrize(
    "header",
    [
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"keep-alive"),
        (b"x", b"a\r\nhost: rebound.example"),
        (b"X-Upper", b"a"),
        (b":path", b"/metrics"),
        (b"content-length", b"5"),
    ],
)
def test_what_would_become_another_request_in_http_1_is_reset(
    http_2: Connection, header: tuple[bytes, bytes]
) -> None:
    http_2.request(1, http2.get(b"/livez", b"localhost", header))
    assert b"alive" not in http_2.answer(1)[1]


def test_a_body_of_another_length_than_told_is_reset(http_2: Connection) -> None:
    head = http2.block(
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/oauth/token"),
        (b":authority", b"localhost"),
        (b"content-length", b"3"),
    )
    http_2.request(1, head, b"more than three")
    assert http_2.answer(1)[0][:1] != OK


def test_a_flood_of_resets_ends_the_connection(http_2: Connection) -> None:
    for stream in range(1, 4_000, 2):
        http_2.send(
            http2.frame(http2.HEADERS, stream, http2.get(), http2.END_HEADERS | http2.END_STREAM)
            + http2.frame(http2.RESET, stream, b"\0\0\0\x08")
        )
    assert http_2.goodbye() == ENHANCE_YOUR_CALM


def test_headers_without_an_end_end_the_connection(http_2: Connection) -> None:
    http_2.send(http2.frame(http2.HEADERS, 1, http2.get()))
    for _ in range(1_000):
        http_2.send(http2.frame(http2.CONTINUATION, 1, http2.block((b"x", b"a" * 1_000))))
    assert http_2.goodbye() is not None


def test_headers_that_are_too_large_are_refused(http_2: Connection) -> None:
    large = http2.get(b"/livez", b"localhost", *((b"x%d" % i, b"a" * 4_000) for i in range(20)))
    http_2.send(http2.frame(http2.HEADERS, 1, large[: http2.FRAME_BYTES_MAX], http2.END_STREAM))
    for start in range(http2.FRAME_BYTES_MAX, len(large), http2.FRAME_BYTES_MAX):
        rest = large[start : start + http2.FRAME_BYTES_MAX]
        last = start + http2.FRAME_BYTES_MAX >= len(large)
        http_2.send(http2.frame(http2.CONTINUATION, 1, rest, http2.END_HEADERS if last else 0))
    assert b"alive" not in http_2.answer(1)[1]


def test_more_streams_than_allowed_are_refused(http_2: Connection) -> None:
    wanted = STREAMS_MAX + 20
    head = http2.block(
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/oauth/token"),
        (b":authority", b"localhost"),
        (b"content-length", b"3"),
    )
    for number in range(wanted):
        http_2.send(http2.frame(http2.HEADERS, 2 * number + 1, head, http2.END_HEADERS))
    resets = (int.from_bytes(one.payload) for one in http_2.frames() if one.kind == http2.RESET)
    assert list(itertools.islice(resets, wanted - STREAMS_MAX)) == [REFUSED_STREAM] * (wanted - STREAMS_MAX)


def test_the_gateway_still_serves_after_all_that(door: FrontDoor, trusting: ssl.SSLContext) -> None:
    with httpx.Client(verify=trusting, base_url=f"https://localhost:{door.settings.gateway.port}") as http:
        wait_for(lambda: http.get("/livez").status_code == 200, "the gateway being alive")
