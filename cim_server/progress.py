"""Progress on stderr: a bar on a terminal, lines elsewhere; Ctrl-C or SIGTERM ask to stop."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType, TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tiling.errors import Cancelled

LINE_SECONDS = 5.0


class ConsoleProgress:
    """Shows steps on stderr; SIGINT and SIGTERM become `Cancelled` at the next step of the work.

    A second one raises ``KeyboardInterrupt`` at once. A context manager.
    """

    def __init__(self, label: str = "", quiet: bool = False) -> None:
        self._label = f"{label}: " if label else ""
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._cancelled = False
        self._step, self._done, self._total = "", 0, 0
        self._next_line = 0.0
        self._previous_handlers: dict[int, object] = {}

    def __enter__(self) -> ConsoleProgress:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous_handlers[signum] = signal.signal(signum, self._interrupt)
        if not self._quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._previous_handlers.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        if self._bar is not None:
            self._bar.stop()

    def begin(self, step: str, total: int | None = None) -> None:
        """Start a step of `total` units."""
        self._step, self._done, self._total = step, 0, total or 0
        if self._bar is not None:
            if self._task is not None:
                self._bar.update(self._task, visible=False)
            self._task = self._bar.add_task(self._label + step, total=total)
        elif not self._quiet:
            print(f"{self._label}{step}" + (f" 0/{total}" if total else ""), file=sys.stderr)
            self._next_line = time.monotonic() + LINE_SECONDS
        self._stop_if_asked()

    def advance(self, amount: int = 1) -> None:
        """Count `amount` units done."""
        self._done += amount
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=amount)
        elif not self._quiet and time.monotonic() >= self._next_line:
            print(f"{self._label}{self._step} {self._done}/{self._total or '?'}", file=sys.stderr)
            self._next_line = time.monotonic() + LINE_SECONDS
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._cancelled:
            raise Cancelled("stopped on request; the same command resumes where it stopped")

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self._cancelled:
            raise KeyboardInterrupt
        self._cancelled = True
        print("stopping after the tiles under way (Ctrl-C again: at once)", file=sys.stderr)
