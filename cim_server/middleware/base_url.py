"""Where the client thinks it is: scheme, host and prefix, written into the ASGI scope.

Everything that makes absolute links (`cim_server.links`, TiTiler, FastAPI) reads them from the
scope, so this is the only place that knows about proxies. The order of belief: a configured
public URL; ``Forwarded`` (RFC 7239) or ``X-Forwarded-*`` if the peer is a trusted proxy; the
request itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

# host[:port], IPv6 in brackets; nothing that could break out of a URL or a header.
_HOST = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?$")
_PREFIX = re.compile(r"^(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*$")
_FORWARDED_PAIR = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,\s]*)\s*')


class BaseUrlMiddleware:
    """Rewrites ``scheme``, the ``host`` header and ``root_path`` of the scope.

    Args:
        app: the application inside.
        public_url: absolute base URL, or empty.
        trusted_proxies: addresses or networks (CIDR).
    """

    def __init__(self, app: ASGIApp, public_url: str, trusted_proxies: Iterable[str]) -> None:
        self.app = app
        self._networks = [ipaddress.ip_network(n, strict=False) for n in trusted_proxies]
        self._public: tuple[str, str, str] | None = None
        if public_url:
            parts = urlsplit(public_url)
            self._public = (parts.scheme, parts.netloc, parts.path.rstrip("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the corrected scope."""
        if scope["type"] == "http":
            seen = self._public
            if seen is None and _is_forwarded(scope) and self._trusts(scope):
                seen = forwarded_base(scope)
            if seen is not None:
                scope = _with_base(scope, *seen)
        await self.app(scope, receive, send)

    def _trusts(self, scope: Scope) -> bool:
        client = scope.get("client")
        if client is None:
            return False
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _is_forwarded(scope: Scope) -> bool:
    return any(n == b"forwarded" or n.startswith(b"x-forwarded-") for n, _ in scope["headers"])


def forwarded_base(scope: Scope) -> tuple[str, str, str] | None:
    """Return (scheme, host, prefix) as the proxy headers state them, or None without any.

    Values that are no scheme, host or path are not believed.
    """
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name == b"forwarded" or name.startswith(b"x-forwarded-"):
            headers.setdefault(name, value.decode("latin-1"))
    if not headers:
        return None
    scheme = str(scope["scheme"])
    host = next((v.decode("latin-1") for n, v in scope["headers"] if n == b"host"), "")
    said = _forwarded(headers[b"forwarded"]) if b"forwarded" in headers else {}
    # Several proxies append from left to right; the leftmost is the one the client spoke to.
    first = {n: v.split(",")[0].strip() for n, v in headers.items()}
    new_scheme = said.get("proto") or first.get(b"x-forwarded-proto", "")
    new_host = said.get("host") or first.get(b"x-forwarded-host", "")
    port = first.get(b"x-forwarded-port", "")
    prefix = first.get(b"x-forwarded-prefix", "").rstrip("/")
    if new_scheme.lower() in ("http", "https"):
        scheme = new_scheme.lower()
    if _HOST.match(new_host):
        host = new_host
        has_port = ":" in new_host.rpartition("]")[2]
        default = {"http": "80", "https": "443"}[scheme]
        if not has_port and port.isdecimal() and port != default:
            host = f"{new_host}:{port}"
    return scheme, host, prefix if _PREFIX.match(prefix) else ""


def _forwarded(value: str) -> dict[str, str]:
    element = re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', value)[0]
    pairs: dict[str, str] = {}
    for part in element.split(";"):
        match = _FORWARDED_PAIR.fullmatch(part)
        if match:
            pairs[match[1].lower()] = match[2].strip('"')
    return pairs


def _with_base(scope: Scope, scheme: str, host: str, prefix: str) -> Scope:
    headers = [(n, v) for n, v in scope["headers"] if n != b"host"]
    headers.append((b"host", host.encode("latin-1")))
    new = {**scope, "scheme": scheme, "headers": headers}
    # A prefix names what the proxy took off, so by the ASGI definition it belongs to the path.
    # A proxy that leaves it on (only a configured public URL can tell) gives the same scope.
    if prefix:
        path = str(scope["path"])
        kept = path == prefix or path.startswith(prefix + "/")
        new["root_path"] = prefix
        new["path"] = path if kept else prefix + path
    return new
