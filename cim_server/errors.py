"""Errors as HTTP: the one module that knows status codes.

Every failure leaves as an RFC 9457 problem document (``application/problem+json``). A message of
a `CimError` is written for people and is sent; anything else is a defect of ours, is logged by
the server, and is answered without detail.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from rasterio.errors import RasterioError
from rio_tiler.errors import (
    InvalidBandName,
    InvalidBounds,
    InvalidBufferSize,
    InvalidColorFormat,
    InvalidColorMapName,
    InvalidExpression,
    InvalidFormat,
    MaxArraySizeError,
    PointOutsideBounds,
    RioTilerError,
    TileOutsideBounds,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tiling.errors import (
    AccessError,
    CimError,
    Conflict,
    FormatError,
    NotFound,
    QueryInvalid,
    RecordInvalid,
    SourceError,
    StoreError,
)

PROBLEM_JSON = "application/problem+json"
_log = logging.getLogger("cim_server.errors")


class InvalidRequest(CimError):
    """The request asks for something that no resource of this kind can give: 400."""


class RequestTooLarge(CimError):
    """The request body is larger than the server takes: 413."""


class RangeNotSatisfiable(CimError):
    """The range begins beyond the end: 416.

    Args:
        nbytes: size of the whole.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        super().__init__(f"the range begins beyond the end, at byte {nbytes}")


class Unauthorized(AccessError):
    """The request carries no valid credentials: 401."""


class Overloaded(CimError):
    """More is being computed than this server takes on at once: 503, ask again soon."""


class NotModified(Exception):
    """Not an error: the client's copy is still the answer (304)."""


# The most derived class wins; see `status_of`.
STATUS: Mapping[type[Exception], int] = {
    NotFound: 404,
    Conflict: 409,
    InvalidRequest: 400,
    QueryInvalid: 400,
    RecordInvalid: 400,
    RequestTooLarge: 413,
    RangeNotSatisfiable: 416,
    Unauthorized: 401,
    AccessError: 403,
    SourceError: 422,
    StoreError: 503,
    Overloaded: 503,
    FormatError: 500,
    CimError: 500,
    TileOutsideBounds: 404,
    PointOutsideBounds: 404,
    InvalidBandName: 400,
    InvalidBounds: 400,
    InvalidBufferSize: 400,
    InvalidColorFormat: 400,
    InvalidColorMapName: 400,
    InvalidExpression: 400,
    InvalidFormat: 400,
    MaxArraySizeError: 400,
    RioTilerError: 500,
    RasterioError: 500,
}


def status_of(error: Exception) -> int:
    """Return the HTTP status for an error; 500 for what is not in `STATUS`."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def problem(
    status: int,
    detail: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """Make a problem document.

    Args:
        status: HTTP status.
        detail: a sentence for people about this occurrence; left out when empty.
        headers: further response headers.
        members: extension members of RFC 9457 §3.2.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
    }
    if detail:
        body["detail"] = detail
    body.update(members)
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type=PROBLEM_JSON,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


async def on_domain_error(request: Request, error: Exception) -> Response:
    """Answer an error of the project's own tree, of rio-tiler or of rasterio."""
    status = status_of(error)
    if isinstance(error, Overloaded):
        return problem(status, str(error), headers={"Retry-After": "1"})
    if status >= 500:
        # A path or a driver's message may name files of this machine: it goes to the log only.
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(status, "The server could not read its own data; its log says why.")
    if isinstance(error, SourceError):
        return problem(status, error.problem, remedy=error.remedy)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.nbytes}"
    return problem(status, str(error), headers=headers)


async def on_not_modified(request: Request, error: Exception) -> Response:
    """End a conditional request; `cim_server.middleware.conditional` adds the validators."""
    return Response(status_code=304)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what Starlette itself raises: no route, wrong method."""
    assert isinstance(error, HTTPException)
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
    return problem(error.status_code, detail, headers=error.headers)


async def on_invalid_parameters(request: Request, error: Exception) -> Response:
    """Answer parameters that do not have the declared type: 400 with the list of them."""
    assert isinstance(error, RequestValidationError)
    invalid = [
        {"in": str(e["loc"][0]), "name": ".".join(map(str, e["loc"][1:])), "reason": e["msg"]}
        for e in error.errors()
    ]
    named = "; ".join(f"{i['name'] or i['in']}: {i['reason']}" for i in invalid)
    return problem(400, named, invalid_params=invalid)


async def on_defect(request: Request, error: Exception) -> Response:
    """Answer a defect without telling more; the server logs the traceback."""
    return problem(500, "A defect of the server; its log says more.")


HANDLERS: dict[int | type[Exception], Any] = {
    CimError: on_domain_error,
    RioTilerError: on_domain_error,
    RasterioError: on_domain_error,
    HTTPException: on_http_exception,
    NotModified: on_not_modified,
    RequestValidationError: on_invalid_parameters,
    Exception: on_defect,
}
