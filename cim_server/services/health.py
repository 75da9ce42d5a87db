"""Health for whoever supervises the server, and its counters for Prometheus."""

from __future__ import annotations

import hmac
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.responses import Response

from catalog.records import StoreRef
from cim_server.errors import Unauthorized
from cim_server.metrics import CONTENT_TYPE
from cim_server.responses import plain_json
from cim_server.state import State
from tiling.errors import CimError

_LISTED = 20


def router(state: State) -> APIRouter:
    """Return ``/healthz`` and ``/metrics``."""
    routes = APIRouter(tags=["operation"])

    @routes.get(
        "/healthz",
        response_class=Response,
        operation_id="healthz",
        responses={
            200: {"content": {"application/json": {}}},
            503: {"description": "The catalogue cannot be read, or stores are missing"},
        },
    )
    async def healthz() -> Response:
        """Say whether the catalogue can be read and every published store is in its place."""
        body = await state.in_catalogue_thread(_health, state)
        return plain_json(body, 200 if body["status"] == "ok" else 503)

    @routes.get(
        "/metrics",
        response_class=Response,
        operation_id="metrics",
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics(authorization: Annotated[str, Header()] = "") -> Response:
        """Count requests, bytes and seconds of this process, in the Prometheus text format."""
        key = state.settings.admin_key
        if key and not hmac.compare_digest(authorization.encode(), f"Bearer {key}".encode()):
            raise Unauthorized("the metrics need the administrator's key as a Bearer token")
        snapshot, stores = state.snapshot, state.stores
        text = state.metrics.render(
            {
                "cim_assets": ("Published assets.", len(snapshot.current)),
                "cim_catalogue_sequence": ("Newest change that is visible.", snapshot.sequence),
                "cim_open_stores": ("Stores open at this moment.", len(stores)),
                "cim_store_hits_total": ("Reads from a store that was open.", stores.hits),
                "cim_store_openings_total": ("Stores opened.", stores.opened),
                "cim_computed_bytes": ("Computed tiles kept.", state.computed.nbytes),
                "cim_computed_hits_total": ("Computed tiles found.", state.computed.hits),
                "cim_computed_misses_total": ("Tiles computed.", state.computed.misses),
                "cim_computed_shared_total": (
                    "Requests that waited for a tile under way.",
                    state.computed.shared,
                ),
            }
        )
        return Response(text, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})

    return routes


def _health(state: State) -> dict[str, Any]:
    snapshot = state.snapshot
    try:
        newest: int | None = state.catalog.sequence()
        trouble = state.refresh_error
    except CimError:
        newest, trouble = None, "the catalogue cannot be read"
    current = [snapshot.entries[item, str(number)] for item, number in snapshot.current.items()]
    refs = {ref.path: ref for entry in current for ref in entry.stores}
    missing = sorted(path for path, ref in refs.items() if not _present(state, ref))
    healthy = newest is not None and not trouble and not missing
    return {
        "status": "ok" if healthy else "fail",
        "version": version("cim-server"),
        "catalogue": {
            "reachable": newest is not None,
            "sequence": newest,
            "visible": snapshot.sequence,
        },
        "assets": len(current),
        "stores": {
            "present": len(refs) - len(missing),
            "missing": len(missing),
            "examples": missing[:_LISTED],
        },
    }


def _present(state: State, ref: StoreRef) -> bool:
    path = state.path_of(ref)
    if path.is_dir():
        return True
    return path.is_file() and path.stat().st_size == ref.nbytes
