"""Settings: safe by default, from the environment, contradictions refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from cim_server.settings import Settings, is_loopback
from tiling.errors import ConfigError

KEY = "k" * 16
DOCS = Path(__file__).parents[2] / "docs" / "server.md"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "cim.example.cn", ""])
def test_an_open_port_without_a_key_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="CIM_ADMIN_KEY"):
        Settings(host=host)
    assert Settings(host=host, admin_key=KEY).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert Settings(host=host).admin_key == ""


def test_a_server_that_must_not_listen_does_not_start(tmp_path: Path) -> None:
    code = "from cim_server.settings import Settings\n"
    code += "settings = Settings.from_env(host='0.0.0.0')\n"
    code += "from cim_server.serve import serve\nserve(settings)"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CIM_")}
    environ["CIM_DATA"] = str(tmp_path / "data")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "refusing to listen on 0.0.0.0" in done.stderr
    assert not (tmp_path / "data").exists()


def test_every_setting_can_come_from_the_environment() -> None:
    environ = {
        "CIM_DATA": "/srv/城市",
        "CIM_HOST": "0.0.0.0",
        "CIM_PORT": "9000",
        "CIM_WORKERS": "3",
        "CIM_ADMIN_KEY": KEY,
        "CIM_PUBLIC_URL": "https://cim.cn/x",
        "CIM_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
        "CIM_ACCESS_LOG": "off",
        "CIM_POLL_S": "0.25",
        "CIM_RASTER_THREADS": "2",
        "CIM_OPEN_STORES": "10",
        "CIM_MAX_BODY_NBYTES": "1000",
        "CIM_CPU_WORKERS": "5",
        "CIM_TILE_CACHE": "6",
        "CIM_DATABASE_URL": "sqlite:////srv/c.db",
        "OTHER": "x",
    }
    made = Settings.from_env(environ)
    assert made == Settings(
        Path("/srv/城市"),
        "sqlite:////srv/c.db",
        "0.0.0.0",
        9000,
        3,
        KEY,
        "https://cim.cn/x",
        ("10.0.0.0/8", "::1"),
        False,
        0.25,
        2,
        10,
        1000,
        5,
        6,
    )
    assert Settings.from_env(environ, port=1, host=None).port == 1
    assert KEY not in repr(made), "a secret does not enter logs"


@pytest.mark.parametrize(
    "environ",
    [
        {"CIM_PORT": "http"},
        {"CIM_PORT": "70000"},
        {"CIM_WORKERS": "0"},
        {"CIM_ACCESS_LOG": "maybe"},
        {"CIM_POLL_S": "0"},
        {"CIM_POLL_S": "nan"},
        {"CIM_PUBLIC_URL": "cim.cn"},
        {"CIM_PUBLIC_URL": "https://cim.cn/?x=1"},
        {"CIM_TRUSTED_PROXIES": "proxy"},
        {"CIM_ADMIN_KEY": "short"},
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused_by_name(environ: dict[str, str]) -> None:
    (name,) = environ
    with pytest.raises(ConfigError, match=rf"(?i){name}|{name[4:]}"):
        Settings.from_env(environ)


def test_every_setting_and_link_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for field in fields(Settings):
        assert f"`CIM_{field.name.upper()}`" in text, field.name


@pytest.mark.parametrize(
    ("text", "nbytes"), [("0", 0), ("1000", 1000), ("64k", 64 << 10), ("2G", 2 << 30)]
)
def test_the_tile_cache_may_carry_a_unit(text: str, nbytes: int) -> None:
    assert Settings.from_env({"CIM_TILE_CACHE": text}).tile_cache == nbytes


@pytest.mark.parametrize("text", ["", "much", "-1", "1T", "1.5G"])
def test_a_tile_cache_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="(?i)tile_cache"):
        Settings.from_env({"CIM_TILE_CACHE": text})
