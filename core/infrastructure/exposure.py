"""What may listen where: nothing speaks in the clear beyond this machine, unless somebody said TLS ends before it."""

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from core.errors.exceptions import Misconfigured

LOCAL_NAMES: Final = frozenset({"localhost"})
PROXY_HEADERS: Final = ("x-forwarded-for", "forwarded", "x-real-ip")


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine."""
    if host in LOCAL_NAMES:
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    # On a dual-stack socket IPv4 peers show up mapped into IPv6; older Pythons do not call their loopback one.
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def name_in(host_header: str) -> str:
    """Return the name or address of a Host header, without its port."""
    host = host_header.lower()
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].rstrip(".")


def is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_local_caller(peer: str, headers: Mapping[str, str]) -> bool:
    """Whether a request was made on this machine, by somebody who meant it. headers: case does not matter in it.

    A proxy on this machine makes the whole world look local; so does a web page in a browser on it whose name its
    owner points at 127.0.0.1, but a page cannot have an address of ours, or localhost, for a name.
    """
    if not is_loopback(peer) or any(name in headers for name in PROXY_HEADERS):
        return False
    name = name_in(headers.get("host", ""))
    return not name or name in LOCAL_NAMES or is_address(name)


def require_tls(section: str, *, host: str, certificate_file: str, behind_tls_proxy: bool) -> None:
    """Refuse to carry tokens over a network in the clear. section: of the settings, for the text.

    Raises:
        Misconfigured: `host` is not loopback, there is no certificate, and nobody said that a proxy has it.
    """
    if certificate_file or behind_tls_proxy or is_loopback(host):
        return
    prefix = f"TICKGATE_{section.upper()}"
    raise Misconfigured(
        f"the {section} does not listen on {host} without TLS: set {prefix}_TLS_CERTIFICATE_FILE and"
        f" {prefix}_TLS_KEY_FILE, or {prefix}_BEHIND_TLS_PROXY=true where only a proxy that ends TLS can reach it",
        code="TLS_REQUIRED",
    )


def tls_context(section: str, certificate_file: str, key_file: str) -> ssl.SSLContext:
    """Return the context of a server's certificate.

    Raises:
        Misconfigured: the files are no certificate and key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate_file, key_file or None)
    except (OSError, ssl.SSLError) as e:
        raise Misconfigured(f"the {section}'s TLS certificate or key cannot be read", code="BAD_TLS") from e
    return context
