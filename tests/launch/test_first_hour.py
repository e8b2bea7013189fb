"""What misled somebody in the first hour with the program, and is said, or said better, since."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.validation.loading import parse_config
from workers.observing.terminal import verbosity

Onward = Callable[..., Any]
ONE_THREAD = "mode=end_to_end trains all 4 blocks in one process on one thread, where a pipeline has a process for each"


@pytest.mark.parametrize(
    ("cores", "overrides", "told"),
    [(4, ("mode=end_to_end",), True), (4, ("mode=end_to_end", "threads=1"), False), (4, (), False),
     (1, ("mode=end_to_end",), False), (4, ("mode=end_to_end", "model.cuts=[]"), False)],
)  # fmt: skip
def test_a_baseline_on_one_thread_says_so(
    folder: Path, onward: Onward, monkeypatch: pytest.MonkeyPatch, cores: int, overrides: tuple[str, ...], told: bool
) -> None:
    """417 images/s on one thread against 1,110 of four processes read as a speed-up of 2.7 in a paper's plot."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    found = onward("check", "config.yaml", *overrides)
    assert found.code == 0, found.err
    assert (ONE_THREAD in found.out) == told
    assert ("give threads=4, as many as there are cores" in found.out) == told


@pytest.mark.parametrize(
    ("key", "how"),
    [
        ("train.epochs=20", r"a cosine that spans the \d+ epochs\. Let it begin anew .* train\.restarts"),
        ("train.max_steps=3", r"It can become longer, not shorter: stop it \(Ctrl-C\) where it is to end"),
    ],
)
def test_whoever_wants_a_run_to_be_longer_is_told_what_can_be_done(
    folder: Path,
    onward: Onward,
    fake_training: list[Path],
    assert_refused: Callable[[Any, str], None],
    key: str,
    how: str,
) -> None:
    """The message named another folder, which begins from nothing, and not why."""
    assert onward("train", "config.yaml", "run_dir=my run").code == 0
    longer = rf"{how}.*Anything else is another run, .* 'onward resume 'my run'' goes on with it"
    assert_refused(onward("train", "config.yaml", "run_dir=my run", key), longer)
    other = onward("train", "config.yaml", "run_dir=my run", key, "seed=5")
    assert_refused(other, r"the same values; .* Only what leaves the numbers alone may change: .*\(device, runtime")


def test_a_warm_up_that_is_too_long_is_refused_before_the_network_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipeline.validation.combinations.check_model", lambda _: pytest.fail("the network was looked at")
    )
    with pytest.raises(ConfigError, match=r"^optimizer\.warmup_epochs: "):
        parse_config({"train": {"epochs": 1}, "optimizer": {"warmup_epochs": 1}})


class Written(io.RawIOBase):
    """A terminal that counts what it is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.pieces.append(bytes(data))
        return len(self.pieces[-1])


@pytest.mark.parametrize("speak", [verbosity.say, verbosity.detail])
def test_what_several_ranks_say_is_not_run_together(
    monkeypatch: pytest.MonkeyPatch, speak: Callable[[str], None]
) -> None:
    """torchrun starts Python without a buffer: `...stage_3.logstage 4: process ...` stood on one line."""
    terminal = Written()
    stream = io.TextIOWrapper(terminal, encoding="utf-8", write_through=True)  # type: ignore[type-var]
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv(verbosity.VARIABLE, "verbose")
    speak("stage 3: process 7, log stage_3.log")
    assert terminal.pieces == [b"stage 3: process 7, log stage_3.log\n"]
