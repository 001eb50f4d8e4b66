import re

import pytest

from isthmus.cli import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def left(bar: console.Bar) -> str:
    return bar._bar.tasks[0].fields["left"]


def test_remaining_time_extrapolates_this_session_over_runs_of_different_cost(clock: list[float]) -> None:
    bar = console.Bar(expected=400)
    bar.start(0, 100)
    for _ in range(100):
        clock[0] += 1
        bar.advance()
    assert left(bar) == "5:00 left"
    bar.start(0, 300)
    for _ in range(100):
        clock[0] += 3
        bar.advance()
    assert left(bar) == "6:40 left"  # 200 steps at the mean of 2 s, not at the last 3 s or the first 1 s
    assert bar._bar.tasks[0].completed == 200


def test_steps_before_a_resume_and_finished_runs_do_not_count_as_fast(clock: list[float]) -> None:
    bar = console.Bar(expected=300)
    bar.skip(100)
    bar.start(150, 200)
    assert left(bar) == ""
    for _ in range(10):
        clock[0] += 2
        bar.advance()
    assert left(bar) == "1:20 left" and bar._bar.tasks[0].completed == 260


def test_without_a_terminal_a_line_appears_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = console.Bar(title="demo")
    bar.start(0, 100)
    for _ in range(100):
        clock[0] += 1
        bar.advance()
    lines = re.findall(r"demo: (\d+)/100 steps, (\S+) left", capsys.readouterr().out)
    assert lines == [("31", "1:09"), ("62", "0:38"), ("93", "0:07")]
