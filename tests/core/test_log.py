"""Progress where there is no terminal, and figures that survive a killed process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from bunny.core import log as log_module
from bunny.core.log import Metrics, log, meter, set_up, track


def test_progress_without_a_terminal_is_a_plain_last_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bunny"):
        assert list(track("abc", "letters", 3)) == ["a", "b", "c"]
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["letters 3/3"]


def test_long_work_says_every_few_seconds_how_much_is_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(log_module.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, "bunny"), meter("steps", 10) as bar:
        for _ in range(4):
            bar.advance(note="loss 2.0")
    assert len(caplog.records) >= 1
    assert caplog.records[0].getMessage().startswith("steps ")
    assert "s left loss 2.0" in caplog.records[0].getMessage()


def test_an_empty_loop_is_no_error() -> None:
    assert list(track([], "nothing", 0)) == []


def test_words_go_to_standard_error_unwrapped(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    log.info("a path %s", "x" * 200)
    out, err = capsys.readouterr()
    assert out == ""
    assert "x" * 200 in err


def test_setting_up_twice_says_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    set_up("WARNING")
    log.warning("once")
    log.info("never")
    err = capsys.readouterr().err
    assert err.count("once") == 1
    assert "never" not in err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with meter("steps", 2) as bar:
        bar.advance(note="half")
        bar.advance()
    assert bar.done == 2


def test_figures_are_read_back_as_written(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "run")
    metrics.write(step=1, loss=np.float32(0.5))
    metrics.write(step=2, text="a\u2028b")
    assert metrics.read() == [{"step": 1, "loss": 0.5}, {"step": 2, "text": "a\u2028b"}]


def test_no_figures_yet_is_an_empty_list(tmp_path: Path) -> None:
    assert Metrics(tmp_path).read() == []


def test_a_torn_line_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(step=1)
    with metrics.path.open("a") as file:
        file.write('{"step": 2, "lo')  # killed here
    Metrics(tmp_path).write(step=3)
    assert Metrics(tmp_path).read() == [{"step": 1}, {"step": 3}]
    assert "torn line" in caplog.text


def test_figures_after_a_step_are_forgotten_with_torn_lines(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "other.jsonl")
    metrics.forget_after(1)
    assert metrics.read() == []
    for step in (1, 2, 2, 3):
        metrics.write(step=step)
    with (tmp_path / "other.jsonl").open("a") as file:
        file.write('{"step": 1, "l')
    Metrics(tmp_path, "other.jsonl").forget_after(2)
    assert (tmp_path / "other.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 2}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["other.jsonl"]
