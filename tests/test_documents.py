"""What the documents tell users to type is accepted, finds what it reads, and every table is shown as one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

import launch.prepare.preflight
import launch.prepare.prepared_run
from tests.documents import DOCUMENTS, PRESETS, Paragraph, blocks, broken_tables, commands, header, paragraphs, place
from tests.reader import BASES, Reader
from tests.sources import PACKAGES, REPOSITORY, TESTS, name_of, text_of

RUN = REPOSITORY / "tests" / "fixtures" / "run_of_c63147f"
NO_COMMANDS = ("make batch",)
"""What only looks like one: a slice of a trace."""
IMAGES = 4200
"""In the folder: a step of the largest preset takes 4096."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the readers work: the presets, many images that are one, and the files that documents have them write."""
    root = tmp_path_factory.mktemp("reader")
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    Image.new("RGB", (8, 8), "teal").save(root / "image.png")
    for name, count in (("images", IMAGES), ("few", 300)):
        for part, images in (("train", count), ("val", 20)):
            for number in range(images):
                path = root / name / part / f"class{number % 10}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(root / "image.png", path)
    for path in DOCUMENTS:
        for name, code in files_to_write(text_of(path)):
            (root / name).write_text(code)
    return root


def files_to_write(text: str) -> Iterator[tuple[str, str]]:
    """Modules that a document shows: the text before such a block names the file."""
    for block in blocks(text):
        before = text.split("\n")[max(block.line - 6, 0) : block.line - 1]
        named = re.findall(r"`(my_\w+\.py)`", "\n".join(before))
        if block.language == "python" and named:
            yield named[-1], block.text


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Reader]:
    """Makes readers that stand in the folder, on a machine with eight GPUs."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(launch.prepare.preflight, "count_gpus", lambda: 8)
    for name, stand_in in (("with_digests", lambda config: config), ("prepare_initial_weights", lambda *_: [])):
        monkeypatch.setattr(launch.prepare.prepared_run, name, stand_in)  # the weights of an example are not here
    monkeypatch.setattr(
        launch.prepare.preflight, "check_port", lambda _metrics: None
    )  # somebody may have that of an example
    return lambda: Reader(folder, RUN)


def wrong_commands(reader: Reader, text: str) -> Iterator[str]:
    """What is wrong with the commands of a document, in its blocks in order, then those within its text."""
    for block in blocks(text):
        if block.language == "":
            for words in commands(block.text):
                yield from (f"{block.line}: {' '.join(words)}\n    {found}" for found in reader.type(words))
    for paragraph in paragraphs(text):
        for code in paragraph.code:
            for words in commands(code) if code not in NO_COMMANDS else ():
                yield from (f"{paragraph.line}: {code}\n    {found}" for found in reader.type(words))


def wrong_keys(reader: Reader, text: str) -> Iterator[str]:
    """What is wrong with the keys and values that the text of a document names."""
    yield from reader.names(list(paragraphs(text)))


def wrong_yaml(reader: Reader, text: str, folder: Path) -> Iterator[str]:
    """What is wrong with the pieces of YAML that a document shows."""
    for block in blocks(text):
        if block.language == "yaml":
            (folder / "shown.yaml").write_text(block.text)
            refusal = reader.refusal(["shown.yaml", "data.name=image_folder", "data.root=/path/to/images"])
            yield from [] if refusal is None else [f"{block.line}: {refusal}"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_of_a_document_is_accepted(path: Path, reader: Callable[[], Reader]) -> None:
    wrong = list(wrong_commands(reader(), text_of(path)))
    assert not wrong, "\n".join([name_of(path), *wrong])


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name_of)
def test_every_key_and_value_that_a_document_names_is_accepted(
    path: Path, reader: Callable[[], Reader], folder: Path
) -> None:
    wrong = [*wrong_keys(reader(), text_of(path)), *wrong_yaml(reader(), text_of(path), folder)]
    assert not wrong, "\n".join([name_of(path), *wrong])


@pytest.mark.parametrize("path", PRESETS, ids=name_of)
def test_the_header_of_a_preset_is_accepted(path: Path, reader: Callable[[], Reader]) -> None:
    given = next(commands(header(path).partition("Command: ")[2].partition("\n")[0]))
    assert list(reader().type(given)) == []
    others = re.findall(r"(?<![\w.=])[a-z_]+(?:\.\w+)*=[^\s,;:)]+", header(path).replace(" ".join(given), ""))
    together = [reader().refusal([*given[2:], *others])] if others else []
    alone = [reader().refusal([*given[2:], other]) for other in others]
    assert alone.count(None) == len(alone) or together == [None], (others, alone, together)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_table_is_not_cut_in_two(path: Path) -> None:
    assert [place(path, line) for line in broken_tables(text_of(path))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_link_leads_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(path))
    assert [target for target in targets if ":" not in target and not (path.parent / target).exists()] == []


def test_the_map_of_the_code_has_every_folder_and_names_no_file_that_is_gone() -> None:
    told = text_of(REPOSITORY / "ARCHITECTURE.md")
    folders = {path.parent.name for path in PACKAGES if path.parents[2] == REPOSITORY}
    assert sorted(name for name in folders if f"`{name}/`" not in told) == []
    named = re.findall(r"`([\w/]+\.py)`", told)
    there = [f"/{name_of(path)}" for path in [*PACKAGES, *TESTS, *REPOSITORY.glob("deploy/**/*.py")]]
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in there)] == []


def shell(*lines: str) -> str:
    """A document that shows these lines."""
    return "\n".join(["```", *lines, "```", ""])


PAPER = "onward train configs/paper_resnet50_imagenet.yaml data.root=/path/to/imagenet"
KEEPING = "onward train configs/quickstart.yaml run_dir=runs/a snapshots.every=195"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (shell(f"{PAPER} stages.1.replicas=3 stages.2.replicas=2"), "stages.1.replicas"),
        (shell(f"{PAPER} \\", "    stages.1.replicas=2 stages.2.replicas=2 data.drop_last=true"), ""),
        (shell("onward evaluate runs/quickstart"), "no line before has trained 'runs/quickstart'"),
        (shell(KEEPING, "onward evaluate runs/a"), ""),
        (shell(KEEPING, "onward evaluate runs/a evaluation.checkpoint=195"), "keeps no snapshot after 195 steps"),
        (shell(KEEPING, "onward evaluate runs/a evaluation.checkpoint=390"), ""),
        (shell(f"{KEEPING} snapshots.keep_every=195", "onward evaluate runs/a evaluation.checkpoint=195"), ""),
        (shell(KEEPING, "onward evaluate runs/a evaluation.checkpoint=2000"), "keeps no snapshot after 2000 steps"),
        (shell(KEEPING, "onward evaluate runs/a", "onward select runs/a runs/a@390"), "evaluated the snapshot"),
        (shell(KEEPING, "onward evaluate runs/a evaluation.checkpoint=390", "onward select runs/a"), "is of: 390"),
        (shell(KEEPING, "onward compare runs/a"), ""),
        (shell(f"{KEEPING} evaluation.linear_probe=false", "onward compare runs/a"), "is of: never"),
        (shell(KEEPING, "onward evaluate runs/a train.epochs=3"), "train.epochs"),
        (shell(KEEPING, "onward evaluate runs/a evaluation.linear=[fast]"), "evaluation.linear"),
        (shell("for s in 1 2; do", "  onward train configs/quickstart.yaml seed=$s run_dir=b-$s", "done",
               "onward report b-2"), ""),
        (shell("for s in 1 2; do", "  onward train configs/quickstart.yaml seed=$s run_dir=b-$s", "done",
               "onward report b-3"), "trained 'b-3'"),
        (shell("onward report RUN --into x.html"), "--into"),
        (shell("onward train configs/quickstart.yaml noise.kind=al"), "noise.kind"),
        (shell("onward train configs/quickstart.yaml max_restarts=2"), "without effect"),
        (shell("torchrun --nproc-per-node=3 -m launch.train configs/quickstart.yaml"), "4 processes"),
        (shell("make everything"), "no target 'everything'"),
        (shell("python tests/benchmarks/nothing.py"), "tests/benchmarks/nothing.py"),
        ("Then say `onward evalute RUN`.", "evalute"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_found(text: str, found: str, reader: Callable[[], Reader]) -> None:
    wrong = "\n".join(wrong_commands(reader(), text))
    assert found in wrong
    assert bool(wrong) == bool(found), wrong


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`engine.kind=deepspeed` leaves a stage to DeepSpeed (ZeRO 1 and 2, offload).", "engine.zero_stage"),
        ("`engine.kind=deepspeed` with `optimizer.kind=adamw`.", ""),
        ("`restart=stage` brings back a stage.", "snapshots"),
        ("`restart=stage` brings back a stage; it needs `snapshots.every`.", ""),
        ("| `precision=bf16` | numbers |", "precision"),
        ("`precision.dtype: bf16`, or `stages.2.objective.kind=vicreg`", ""),
        ("`model.cuts=all` is one block a unit.", "model.cuts"),
        ("`evaluation.online.kn_bank` and `data.views.0.size`", "evaluation.online.kn_bank"),
        ("`stages.K.replicas`, `engine.zero_stage`, `optimizer.betas`, `metrics.jsonl`", ""),
        ("`stages.K.train`", "stages.K.train"),
    ],
)
def test_a_wrong_key_or_value_is_found(text: str, found: str, reader: Callable[[], Reader]) -> None:
    wrong = "\n".join(wrong_keys(reader(), text))
    assert found in wrong
    assert bool(wrong) == bool(found), wrong


def test_a_table_with_a_blank_line_in_it_is_found() -> None:
    table = "| key | choices |\n|---|---|\n| a | b |\n"
    assert list(broken_tables(table + "\n" + table)) == []
    assert list(broken_tables(table + "\n| c | d |\n| e | f |\n")) == [5]


def test_paragraphs_are_told_apart() -> None:
    text = "One `a`\nand `b\nc`.\n- two `d`\n| `e` |\n```\n`f`\n```\n"
    assert list(paragraphs(text)) == [
        Paragraph(1, "One `a`\nand `b\nc`."), Paragraph(4, "- two `d`"), Paragraph(5, "| `e` |"),
    ]  # fmt: skip
    assert [paragraph.code for paragraph in paragraphs(text)] == [["a", "b c"], ["d"], ["e"]]


def test_a_reader_starts_from_what_is_accepted(reader: Callable[[], Reader]) -> None:
    assert [reader().refusal(base) for base in BASES] == [None, None]
