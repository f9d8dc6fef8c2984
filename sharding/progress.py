"""One line of progress for anything that takes more than a few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """Prints what is done, the rate and the time left to stderr, at most every `every` seconds.

    On a terminal the line is rewritten in place; in a log each line stands for itself.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "samples", every: float = 2.0) -> None:
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self.done, self.first, self.begin = 0, 0, time.monotonic()
        self.printed, self.begun = self.begin, False

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` units (counted from the start of the work) are finished."""
        now = time.monotonic()
        if not self.begun:  # what was finished before this process began does not count towards its rate
            self.begun, self.first = True, done
        self.done = done
        if self.total:  # an estimate may prove low
            self.total = max(self.total, done)
        if now - self.printed >= self.every:
            self.printed = now
            self._print(now, note)

    def _print(self, now: float, note: str = "", end: str = "") -> None:
        seconds = now - self.begin
        rate = (self.done - self.first) / seconds if seconds > 0 else 0.0
        share = (
            f"{self.done}/{self.total} {self.unit} {100 * self.done // self.total} %"
            if self.total
            else f"{self.done} {self.unit}"
        )
        left = f", {_clock((self.total - self.done) / rate)} left" if self.total and rate > 0 and not end else ""
        line = f"{self.what}: {share}, {rate:.0f}/s{left}{', ' + note if note else ''}{end}"
        sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Print the last line, if the work was long enough for a line to be worth it."""
        now = time.monotonic()
        if self.printed > self.begin:
            self._print(now, end=f", took {_clock(now - self.begin)}")
            if sys.stderr.isatty():
                sys.stderr.write("\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
