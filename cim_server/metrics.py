"""Counters of one server process, in the Prometheus text format 0.0.4.

All counting happens on the event loop, so plain dicts suffice. Each worker process counts for
itself and says so with the ``pid`` label: sum over it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# Seconds: tiles take fractions of a millisecond, dynamic rasters up to seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total_s: float = 0.0


@dataclass(slots=True)
class Metrics:
    """What one process has served since it started."""

    pid: int
    _requests: defaultdict[tuple[str, str, int], int] = field(
        default_factory=lambda: defaultdict(int)
    )
    _seconds: defaultdict[str, _Histogram] = field(default_factory=lambda: defaultdict(_Histogram))
    _nbytes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def observe(self, route: str, method: str, status: int, seconds: float, nbytes: int) -> None:
        """Count one finished request.

        Args:
            route: the route's template, never the path: labels must stay few.
            method: HTTP method.
            status: HTTP status.
            seconds: from the request's arrival to the last byte handed over.
            nbytes: body bytes sent.
        """
        self._requests[route, method, status] += 1
        histogram = self._seconds[route]
        histogram.counts[bisect_left(BUCKETS, seconds)] += 1
        histogram.total_s += seconds
        self._nbytes[route] += nbytes

    def render(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return the exposition text.

        Args:
            gauges: name -> (help text, value), read at this moment; names that end in
                ``_total`` are exposed as counters.
        """
        return "\n".join([*self._lines(gauges), ""])

    def _lines(self, gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
        pid = f'pid="{self.pid}"'
        yield "# HELP cim_requests_total Requests answered."
        yield "# TYPE cim_requests_total counter"
        for (route, method, status), count in sorted(self._requests.items()):
            labels = f'{pid},route="{_escape(route)}",method="{_escape(method)}",status="{status}"'
            yield f"cim_requests_total{{{labels}}} {count}"
        yield "# HELP cim_response_bytes_total Body bytes sent."
        yield "# TYPE cim_response_bytes_total counter"
        for route, nbytes in sorted(self._nbytes.items()):
            yield f'cim_response_bytes_total{{{pid},route="{_escape(route)}"}} {nbytes}'
        yield "# HELP cim_request_seconds Time from a request's arrival to its last byte."
        yield "# TYPE cim_request_seconds histogram"
        for route, histogram in sorted(self._seconds.items()):
            labels = f'{pid},route="{_escape(route)}"'
            cumulated = 0
            for bound, count in zip((*BUCKETS, "+Inf"), histogram.counts, strict=True):
                cumulated += count
                yield f'cim_request_seconds_bucket{{{labels},le="{bound}"}} {cumulated}'
            yield f"cim_request_seconds_sum{{{labels}}} {histogram.total_s:.6f}"
            yield f"cim_request_seconds_count{{{labels}}} {cumulated}"
        for name, (text, value) in sorted(gauges.items()):
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
            yield f"{name}{{{pid}}} {value:g}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
