"""The characters that maps write with, as the server sends them."""

from __future__ import annotations

import httpx

from cim_server.testing.services import ServiceTests

STACK = "/styles/fonts/Open%20Sans,Noto%20Sans%20SC%20Regular"


class TestFonts(ServiceTests):
    found = {
        f"{STACK}/0-255.pbf": "application/x-protobuf",
        f"{STACK}/26368-26623.pbf": "application/x-protobuf",
    }
    missing = (
        "/styles/fonts/Open%20Sans/0-255.pbf",
        f"{STACK}/1-256.pbf",
        f"{STACK}/0-511.pbf",
        f"{STACK}/1114112-1114367.pbf",
        f"{STACK}/..%2Fsecret.pbf",
    )


def test_a_range_without_characters_is_empty_rather_than_missing(client: httpx.Client) -> None:
    for encoding in ("gzip", "identity"):
        thai = client.get(f"{STACK}/3584-3839.pbf", headers={"Accept-Encoding": encoding})
        assert (thai.status_code, thai.content) == (200, b"")
