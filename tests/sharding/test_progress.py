"""The progress line: share, rate, time left; never more than all of it."""

from __future__ import annotations

import pytest

from sharding.progress import Progress, _clock


def test_line_tells_share_and_never_passes_100_percent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("build", 70, "photos", every=0.0) as progress:
        progress.update(35)
        progress.update(72, "note")
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("build: 35/70 photos 50 %")
    assert second.startswith("build: 72/72 photos 100 %")
    assert second.endswith(", note")
    assert ", took " in last


def test_clock() -> None:
    assert [_clock(s) for s in (4.6, 75, 3725)] == ["5 s", "1 min 15 s", "1 h 02 min"]
