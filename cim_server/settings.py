"""The server's settings: one frozen value, made in ``main`` and passed down.

Nothing here is read at import; `Settings.from_env` is called once, by whoever starts the server.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tiling.errors import ConfigError

ENV_PREFIX = "CIM_"
MIN_ADMIN_KEY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the server can be told.

    Each field is also an environment variable: ``public_url`` is ``CIM_PUBLIC_URL``.

    Attributes:
        data: folder with ``catalog.db`` and ``stores/``.
        database_url: SQLAlchemy URL of the catalogue; empty means ``catalog.db`` in ``data``.
        host: address to bind; anything but loopback needs ``admin_key``.
        port: TCP port; 0 lets the system choose.
        workers: server processes.
        admin_key: secret of the administrator, at least 16 characters; guards ``/metrics``.
        public_url: base of every absolute link, e.g. ``https://cim.example.cn/base``; empty means
            the request's own host, or what a trusted proxy says.
        trusted_proxies: addresses or networks whose ``Forwarded`` headers are believed.
        access_log: log one line a request.
        poll_s: seconds between two looks at the catalogue's change log.
        raster_threads: worker threads for GDAL in each process.
        open_stores: stores kept open in each process.
        max_body_nbytes: largest request body.
        cpu_workers: processes for computed terrain (relief, contours, meshes) of each server
            process; started when first needed.
        tile_cache: bytes of memory of each server process for computed tiles (terrain, imagery);
            the environment may say ``512M`` or ``2G``; 0 keeps none.
    """

    data: Path = Path("data")
    database_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    admin_key: str = field(default="", repr=False)
    public_url: str = ""
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1")
    access_log: bool = True
    poll_s: float = 0.5
    raster_threads: int = 4
    open_stores: int = 256
    max_body_nbytes: int = 1 << 20
    cpu_workers: int = 2
    tile_cache: int = 256 << 20

    def __post_init__(self) -> None:
        if self.admin_key and len(self.admin_key) < MIN_ADMIN_KEY_LENGTH:
            raise ConfigError(
                f"admin_key has {len(self.admin_key)} characters; "
                f"use at least {MIN_ADMIN_KEY_LENGTH} (CIM_ADMIN_KEY)"
            )
        if not self.admin_key and not is_loopback(self.host):
            raise ConfigError(
                f"refusing to listen on {self.host}: anyone who can reach it could read the city's "
                "data. Bind to 127.0.0.1 (the default) behind a proxy that authorises, or set "
                f"CIM_ADMIN_KEY to a secret of at least {MIN_ADMIN_KEY_LENGTH} characters to take "
                "responsibility for an open port"
            )
        if self.public_url:
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ConfigError(
                    f"public_url {self.public_url!r} is not an absolute http(s) URL such as "
                    "https://cim.example.cn/base (CIM_PUBLIC_URL)"
                )
            if parts.query or parts.fragment:
                raise ConfigError(
                    f"public_url {self.public_url!r} must have neither query nor fragment"
                )
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError as error:
                raise ConfigError(f"trusted_proxies: {error} (CIM_TRUSTED_PROXIES)") from error
        for name, least in (
            ("port", 0),
            ("workers", 1),
            ("raster_threads", 1),
            ("cpu_workers", 1),
            ("tile_cache", 0),
            ("open_stores", 1),
            ("max_body_nbytes", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0.01 <= self.poll_s <= 60:
            raise ConfigError(f"poll_s is {self.poll_s}; it must lie between 0.01 and 60 seconds")
        if self.port > 65535:
            raise ConfigError(f"port is {self.port}; it must be at most 65535")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Make settings from environment variables.

        Args:
            environ: ``os.environ`` as it is at the call, if left out.
            overrides: fields that the command line sets; None means "not given".

        Raises:
            ConfigError: a variable cannot be parsed, or the settings contradict each other.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for f in fields(cls):
            text = environ.get(ENV_PREFIX + f.name.upper())
            if text is not None:
                values[f.name] = _parse(f.name, text)
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)


def is_loopback(host: str) -> bool:
    """Say whether a bind address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        # A host name may resolve to any interface: only addresses are taken at their word.
        return False


def _flag(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True}
    values |= {"0": False, "false": False, "no": False, "off": False}
    return values[text.strip().lower()]


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _size(text: str) -> int:
    number, unit = text.strip(), text.strip()[-1:].upper()
    shift = {"K": 10, "M": 20, "G": 30}.get(unit, 0)
    return int(number[:-1] if shift else number) << shift


_PARSERS: dict[str, Callable[[str], Any]] = {
    "data": Path,
    "port": int,
    "workers": int,
    "trusted_proxies": _words,
    "access_log": _flag,
    "poll_s": float,
    "raster_threads": int,
    "cpu_workers": int,
    "tile_cache": _size,
    "open_stores": int,
    "max_body_nbytes": int,
}


def _parse(name: str, text: str) -> Any:
    try:
        return _PARSERS.get(name, str)(text)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{ENV_PREFIX}{name.upper()}={text!r} cannot be understood") from error
