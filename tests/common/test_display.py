"""Progress on stderr: bars on a terminal, lines in a log file."""

from __future__ import annotations

import io

from rich.console import Console

from debiasbench.common.display import Bar, Lines, display
from debiasbench.common.progress import Progress

VALUES = {"loss": 0.41234, "val_loss": 1.2, "val_unbiased": 0.7123, "val_average": 0.9}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(label: str = "") -> tuple[Lines, list[str], Clock]:
    written: list[str] = []
    clock = Clock()
    return Lines(label=label, write=written.append, clock=clock), written, clock


def test_a_line_follows_each_epoch_with_loss_and_the_metric_of_the_data_set() -> None:
    lines, written, clock = lines_of()
    lines.begin("rest on digits", "val_unbiased")
    lines.start("train", 20)
    for epoch in (1, 2):
        for _ in range(10):
            lines.advance()
        clock.now += 3
        lines.epoch(epoch, 2, VALUES)
    lines.finish()
    assert written == [
        "rest on digits, train: 20 steps",
        "rest on digits, train: epoch 1 of 2, 10 of 20 steps, 3 s, loss 0.412, val unbiased 71.2 %",
        "rest on digits, train: epoch 2 of 2, 20 of 20 steps, 6 s, loss 0.412, val unbiased 71.2 %",
    ]


def test_a_line_follows_each_minute_of_a_long_epoch() -> None:
    lines, written, clock = lines_of("3/12  seed=1")
    lines.start("train", 1000)
    for _ in range(130):
        clock.now += 1
        lines.advance()
    assert written[1:] == [
        "3/12  seed=1  train: 60 of 1,000 steps, 60 s",
        "3/12  seed=1  train: 120 of 1,000 steps, 120 s",
    ]


def test_a_transfer_is_counted_in_megabytes() -> None:
    written: list[str] = []
    lines = Lines("bytes", write=written.append, clock=(clock := Clock()))
    lines.start("mnist.gz", 11_000_000)
    clock.now = 61
    lines.advance(5_500_000)
    assert written == ["mnist.gz: 11.0 MB", "mnist.gz: 5.5 MB of 11.0 MB, 61 s"]


def test_the_bar_shows_data_set_loss_and_metric() -> None:
    screen = io.StringIO()
    with Bar(console=Console(file=screen, force_terminal=True, no_color=True, width=140)) as bar:
        bar.begin("rest on digits", "val_unbiased")
        bar.start("train", 2)
        bar.advance(2)
        bar.epoch(1, 1, VALUES)
        bar.finish()
    assert "rest on digits: train" in screen.getvalue()
    assert "loss 0.412, val unbiased 71.2 %" in screen.getvalue()


def test_without_a_terminal_there_are_lines_and_quiet_shows_nothing() -> None:
    assert isinstance(display(), Lines)
    assert type(display(quiet=True)) is Progress
