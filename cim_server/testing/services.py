"""What every service promises, as a test class to inherit.

A test module provides a fixture ``client`` (an ``httpx.Client`` of a running server), subclasses
`ServiceTests`, and names its addresses.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ServiceTests:
    """The promises of a service.

    Attributes:
        found: path -> media type, for resources that exist.
        missing: paths of resources that do not.
        conditional: whether answers carry an ETag.
    """

    found: ClassVar[dict[str, str]]
    missing: ClassVar[tuple[str, ...]]
    conditional: ClassVar[bool] = True

    def test_what_exists_is_answered_with_its_media_type(self, client: Any) -> None:
        """GET gives 200, the declared type and a body."""
        for path, media_type in self.found.items():
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            assert answer.headers["content-type"].split(";")[0] == media_type, path
            assert answer.content, path
            assert "cache-control" in answer.headers, path

    def test_head_answers_like_get_but_without_a_body(self, client: Any) -> None:
        """HEAD gives the same status and headers as GET."""
        varying = {"date", "content-length"} if not self.conditional else {"date"}
        for path in (*self.found, *self.missing):
            got, head = client.get(path), client.head(path)
            assert head.status_code == got.status_code, path
            assert head.content == b"", path
            assert _but(head, varying) == _but(got, varying), path

    def test_a_known_etag_is_answered_with_304(self, client: Any) -> None:
        """If-None-Match spares the body and keeps the validators; another tag does not match."""
        if not self.conditional:
            return
        for path in self.found:
            first = client.get(path)
            etag = first.headers["etag"]
            assert etag.startswith('"') and etag.endswith('"'), path
            for known in (etag, f'"other", W/{etag}', "*"):
                again = client.get(path, headers={"If-None-Match": known})
                assert (again.status_code, again.content) == (304, b""), (path, known)
                assert again.headers["etag"] == etag, path
                assert again.headers["cache-control"] == first.headers["cache-control"], path
            assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200, path

    def test_what_is_missing_is_a_404_problem(self, client: Any) -> None:
        """404 comes as RFC 9457 JSON and is not kept by caches."""
        for path in self.missing:
            answer = client.get(path)
            assert answer.status_code == 404, (path, answer.text)
            _assert_problem(answer, 404)

    def test_a_method_that_is_not_offered_is_a_405_problem(self, client: Any) -> None:
        """DELETE is answered with 405 and the methods there are."""
        for path in self.found:
            answer = client.delete(path)
            _assert_problem(answer, 405)
            assert "GET" in answer.headers["allow"], path

    def test_pages_of_any_origin_may_read(self, client: Any) -> None:
        """CORS headers are on answers, errors and preflights."""
        origin = {"Origin": "https://viewer.example.cn"}
        for path in (*self.found, *self.missing):
            answer = client.get(path, headers=origin)
            assert answer.headers["access-control-allow-origin"] == "*", path
            assert "ETag" in answer.headers["access-control-expose-headers"], path
            asked = {**origin, "Access-Control-Request-Method": "GET"}
            preflight = client.options(path, headers=asked)
            assert preflight.status_code in (200, 204), path
            assert preflight.headers["access-control-allow-origin"] == "*", path


def _but(answer: Any, varying: set[str]) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in varying}


def _assert_problem(answer: Any, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status and body["title"]
    assert "Traceback" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
