"""The first stage reads what it is asked for and nothing else, and finishes colours with the draws of its own rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Config
from pipeline.data.augment.device_photometrics import Photometrics
from pipeline.errors import ConfigError, TrainingError, UserError
from pipeline.validation.combinations import check_combinations
from tests.marks import slow
from tests.waiting import LIMIT
from tests.workers.feed.feed_cases import assert_same, batches, config, write_photos
from workers.feed import Feed, FeedBatch, FeedMeasures
from workers.feed import first_stage as feeding
from workers.feed.first_stage import (
    AugmentingReceiver,
    MeasuredReports,
    NumbersFeed,
    numbers_spec,
    open_feed,
    with_device_augmentation,
    with_own_feed,
)
from workers.links.base import LinkAddress, LinkTimeout, Part, Receiver
from workers.links.messages import Header, Message, TensorSpec
from workers.topology.processes import TrainingProcess

ADDRESS = LinkAddress("link0", "coordinator", "stage 1", path="", key=b"", depth=2)


class Numbers(Receiver):
    """A link whose messages are there already."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__(ADDRESS, TensorSpec((1, 8), torch.int64))
        self.messages, self.closed = messages, False

    def recv(self, timeout: float) -> Message:
        if not self.messages:
            raise LinkTimeout("nothing")
        return self.messages.pop(0)

    def waiting(self) -> int:
        return len(self.messages)

    def close(self) -> None:
        self.closed = True


def stages(root: Path, **data: Any) -> Config:
    return config(root, feed="stages", **data)


def message(batch: FeedBatch, data_set: str, rows: slice = slice(None)) -> Message:
    header = Header(batch.step, batch.epoch, (), last=batch.last, labels=b"\1\0\0\0", data_set=data_set)
    return Message(header, batch.views[:, rows])


def asked(run: Config, start_step: int = 0, part: tuple[int, int] = (0, 1)) -> list[Message]:
    """What the coordinator sends to one replica."""
    with NumbersFeed(run, start_step) as feed:
        found = list(feed)
        share = [len(batch.samples) // part[1] for batch in found]
        rows = [slice(part[0] * n, (part[0] + 1) * n) for n in share]
        return [message(batch, feed.data_set, r) for batch, r in zip(found, rows, strict=True)]


@contextmanager
def receiving(
    run: Config, messages: list[Message], process: TrainingProcess, start_step: int = 0
) -> Iterator[Receiver]:
    """The receiving end of stage 1."""
    link = Numbers(messages)
    end, feed = with_own_feed(link, run, process, start_step, TensorSpec((2, 8, 16, 16, 3), torch.uint8))
    with end:
        yield end
    assert link.closed
    assert not feed._thread.is_alive()


ALONE = TrainingProcess(0, 0, (1,))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "here")


def test_the_numbers_are_those_of_the_feed_and_no_image_is_opened(photos: Path) -> None:
    expected = batches(config(photos, labels=True))
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"x" * path.stat().st_size)
    with open_feed(Config.model_validate({**stages(photos).model_dump(), "objective": {"kind": "supervised"}})) as feed:
        assert isinstance(feed, NumbersFeed)
        found = list(feed)
        assert (feed.total_steps, feed.steps_per_epoch, feed.measures()) == (6, 3, FeedMeasures())
    assert_same([replace(b, views=torch.zeros(0)) for b in found], [replace(b, views=torch.zeros(0)) for b in expected])
    for batch in found:
        assert (batch.views.dtype, batch.views.tolist()) == (torch.int64, [batch.samples.tolist()])
        assert numbers_spec(stages(photos)).admits(tuple(batch.views.shape), batch.views.dtype)
    assert [b.step for b in NumbersFeed(stages(photos), start_step=4)] == [4, 5]


@pytest.mark.parametrize("runtime", ["serial", "pipelined"])
def test_only_a_pipeline_has_stages_that_read(photos: Path, runtime: str) -> None:
    run = Config.model_validate({**stages(photos).model_dump(), "runtime": runtime})
    with open_feed(run) as feed:
        assert isinstance(feed, Feed if runtime == "serial" else NumbersFeed)
    with open_feed(config(photos)) as feed:
        assert isinstance(feed, Feed)


def test_labels_cannot_follow_images_that_stand_in_for_broken_ones(photos: Path) -> None:
    run = {**stages(photos, on_error="skip").model_dump(), "optimizer": {"warmup_epochs": 0}}
    check_combinations(Config.model_validate(run))
    with pytest.raises(ConfigError, match=r"^data\.on_error: .* Set data\.on_error=fail or data\.feed=coordinator$"):
        check_combinations(Config.model_validate({**run, "objective": {"kind": "supervised"}}))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("part", "workers"),
    [((0, 1), 0), ((0, 2), 0), ((1, 2), 2), slow((0, 1), 2), slow((0, 2), 2), slow((1, 2), 0)],
)
def test_numbers_in_images_out(photos: Path, part: tuple[int, int], workers: int) -> None:
    run = stages(photos, workers=workers, drop_last=True)
    expected = batches(config(photos, drop_last=True), 1, part)
    process = TrainingProcess(part[0], 0, (1,), part[0] + 1, part[1])
    with receiving(run, asked(run, 1, part), process, start_step=1) as end:
        for batch in expected:
            assert end.waiting() == len(expected) - (batch.step - 1)
            got = end.recv(LIMIT)
            assert torch.equal(got.tensor, batch.views)
            assert got.header == Header(batch.step, batch.epoch, (), last=batch.last, labels=b"\1\0\0\0")
        with pytest.raises(LinkTimeout):
            end.recv(0.0)


def test_a_timeout_of_the_link_loses_no_batch(photos: Path) -> None:
    run = stages(photos)
    messages = asked(run)
    with receiving(run, messages, ALONE) as end:
        held = messages[:]
        messages.clear()
        with pytest.raises(LinkTimeout):
            end.recv(0.0)
        messages += held
        assert torch.equal(end.recv(LIMIT).tensor, batches(config(photos))[0].views)


def renamed(folder: Path) -> None:
    next((folder / "class0").iterdir()).rename(folder / "class0" / "zz.jpg")


def resized(folder: Path) -> None:
    path = next((folder / "class0").iterdir())
    path.write_bytes(path.read_bytes() + b" ")


def moved_to_another_class(folder: Path) -> None:
    path = next((folder / "class0").iterdir())
    path.rename(folder / "class1" / path.name)


def removed(folder: Path) -> None:
    next((folder / "class0").iterdir()).unlink()


@pytest.mark.parametrize("change", [renamed, resized, moved_to_another_class, removed])
def test_a_host_with_another_data_set_is_found_out(photos: Path, tmp_path: Path, change: Any) -> None:
    messages = asked(stages(photos))
    shutil.copytree(photos, there := tmp_path / "there")
    change(there)
    with receiving(stages(there), messages, ALONE) as end, pytest.raises(UserError) as raised:
        end.recv(LIMIT)
    text = str(raised.value)
    assert "the data set of stage 1 is another than that of coordinator" in text
    prints = [feeding.fingerprint(feeding.open_dataset(stages(root).data, "train")) for root in (there, photos)]
    assert f"(fingerprints {prints[0][:12]} and {prints[1][:12]})" in text
    assert "data.root" in text


def test_the_same_data_set_may_lie_elsewhere(photos: Path, tmp_path: Path) -> None:
    messages = asked(stages(photos))
    shutil.copytree(photos, there := tmp_path / "there")
    with receiving(stages(there), messages, ALONE) as end:
        parts: list[Part] = []
        end.measure(parts.append)
        assert torch.equal(end.recv(LIMIT).tensor, batches(config(photos))[0].views)
        assert parts == ["waiting"], "for the feed; nothing is copied"


def test_another_batch_than_was_prepared_is_refused(photos: Path) -> None:
    run = stages(photos)
    late, other = asked(run)[1:], asked(Config.model_validate({**run.model_dump(), "seed": 6}))
    for messages, ready in ((late, r"step 1, .* and step 0, images \["), (other, r"step 0, .* and step 0, images \[")):
        with receiving(run, messages, ALONE) as end, pytest.raises(TrainingError, match=ready):
            end.recv(LIMIT)
    beyond = [replace(m, header=replace(m.header, step=6)) for m in asked(run)[:1]]
    with receiving(run, beyond, ALONE, start_step=6) as end, pytest.raises(TrainingError, match="and nothing had been"):
        end.recv(LIMIT)


def test_an_image_that_cannot_be_decoded_is_named(photos: Path) -> None:
    messages, first = asked(stages(photos)), batches(config(photos))[0].samples[0]
    broken = sorted(photos.rglob("*.jpg"))[first]
    broken.write_bytes(b"x" * broken.stat().st_size)
    with receiving(stages(photos), messages, ALONE) as end, pytest.raises(UserError, match=broken.name):
        end.recv(LIMIT)


def test_a_data_set_that_is_not_there_closes_the_link(tmp_path: Path) -> None:
    link = Numbers([])
    with pytest.raises(UserError):
        with_own_feed(link, stages(tmp_path / "nowhere"), ALONE, 0, TensorSpec((2, 8, 16, 16, 3), torch.uint8))
    assert link.closed


def test_reports_of_the_first_stage_tell_of_its_feed(photos: Path) -> None:
    sent: list[dict[str, Any]] = []

    class Control:
        def send(self, message: dict[str, Any]) -> None:
            sent.append(message)

    with Feed(config(photos)) as feed:
        next(feed)
        reports = MeasuredReports(Control(), feed)
        for kind, stage in (("report", 1), ("report", 2), ("done", 1)):
            reports.send({"type": kind, "stage": stage})
        assert sent == [
            {"type": "report", "stage": 1, "feed": asdict(feed.measures())},
            {"type": "report", "stage": 2},
            {"type": "done", "stage": 1},
        ]
        assert sent[0]["feed"]["images"] == 8


SAMPLES = np.array([5, 900_000, 3, 8, 1, 0, 7, 2], np.int64)


def views(rows: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(rows).integers(0, 256, (2, rows, 16, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize("part", [(0, 1), (0, 2), (1, 2)])
def test_colours_are_finished_with_the_draws_of_the_rows(photos: Path, part: tuple[int, int]) -> None:
    run = config(photos, augment_on="device")
    rows = slice(part[0] * 8 // part[1], (part[0] + 1) * 8 // part[1])
    pixels = views(8 // part[1])
    header = Header(4, 2, (0.5,), samples=SAMPLES.astype("<i8").tobytes())
    end = with_device_augmentation(
        Numbers([Message(header, pixels)]), run, TrainingProcess(part[0], 0, (1,), part[0] + 1, part[1])
    )
    assert isinstance(end, AugmentingReceiver)
    with end:
        assert end.waiting() == 1
        parts: list[Part] = []
        end.measure(parts.append)
        got = end.recv(LIMIT)
        assert parts == ["computing"], "that was no waiting"
    assert torch.equal(got.tensor, Photometrics(run.data, 2, run.seed)(pixels, 2, SAMPLES[rows]))
    assert not torch.equal(got.tensor, pixels)
    assert got.header == Header(4, 2, (0.5,))


@pytest.mark.parametrize("place", ["auto", "workers"])
def test_colours_of_the_workers_are_left_alone(photos: Path, place: str) -> None:
    link = Numbers([])
    assert with_device_augmentation(link, config(photos, augment_on=place), ALONE) is link


def test_numbers_of_other_rows_are_refused(photos: Path) -> None:
    end = with_device_augmentation(
        Numbers([Message(Header(0, 0, ()), views(8))]), config(photos, augment_on="device"), ALONE
    )
    with pytest.raises(TrainingError, match=r"link0.* numbers of 0 images came with 8 of them"):
        end.recv(LIMIT)
