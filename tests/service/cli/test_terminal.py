from __future__ import annotations

import pytest

from indexer import Progress
from service.cli import terminal
from service.cli.terminal import Reporter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    return clock


def test_a_log_gets_the_rate_and_the_time_left(clock, capsys):
    with Reporter() as reporter:
        for seconds, done in ((0, 1000), (1, 1050), (4, 1100), (5, 1150), (6.5, 20_000)):
            clock.now = 100.0 + seconds
            reporter(Progress("classifying", done, 20_000))
    assert capsys.readouterr().err.splitlines() == [
        "classifying: 1,100 of 20,000, 25.0 a second, 12:36 left",
        "classifying: 20,000 of 20,000, 2,923.1 a second, 0:00 left",
    ]


def test_what_is_done_soon_needs_no_progress(clock, capsys):
    with Reporter() as reporter:
        reporter(Progress("classifying", 1, 2))
        clock.now += 1.9
        reporter(Progress("classifying", 2, 2))
    assert capsys.readouterr().err == ""


def test_nothing_is_said_of_speed_before_it_is_known(clock, capsys):
    with Reporter() as reporter:
        clock.now += 5
        reporter(Progress("classifying", 0, 7200))
        clock.now += 5
        reporter(Progress("classifying", 5, 7200))
    assert capsys.readouterr().err.splitlines() == [
        "classifying: 0 of 7,200",
        "classifying: 5 of 7,200, 1.0 a second, 1:59:55 left",
    ]
