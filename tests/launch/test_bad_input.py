"""Bad input, as one table: exit code 2, where it is, what was found, what to do; and nothing was started or written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import launch.prepare.preflight


@dataclass(frozen=True)
class Case:
    """One mistake.

    Args:
        name: what the mistake is.
        expected: pattern in the message after `error: `, which is one line: place, value, remedy.
        overrides: of the good configuration, on the command line.
        text: of the configuration file, if not the good one; "" leaves the file out.
        prepare: changes the folder that holds `config.yaml` and `images/`.
        gpus: that the machine is made to have.
    """

    name: str
    expected: str
    overrides: tuple[str, ...] = ()
    text: str | bytes | None = None
    prepare: Callable[[Path], object] = field(default=lambda folder: None)
    gpus: int = 0


def empty_folder(folder: Path) -> None:
    for path in (folder / "images" / "train").rglob("*.png"):
        path.unlink()
    for path in (folder / "images" / "train").iterdir():
        path.rmdir()


def empty_class(folder: Path) -> None:
    (folder / "images" / "train" / "class9").mkdir()


def broken_image(folder: Path) -> None:
    (folder / "images" / "train" / "class0" / "1.png").write_bytes(b"not an image")


def cut_image(folder: Path) -> None:
    path = folder / "images" / "train" / "class1" / "2.png"
    Image.new("RGB", (64, 64), (1, 2, 3)).save(path)
    path.write_bytes(path.read_bytes()[:80])


def earlier_run(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "config.yaml").write_text("seed: 0\n")


def other_files(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "notes.txt").write_text("keep me")


CASES = [
    # keys
    Case("unknown key", r"^sed: unknown key \(value 1\)\. Did you mean 'seed'\? Allowed: seed, run_dir", ("sed=1",)),
    Case("unknown nested key", r"^data\.bach_size: .*value 8.*Did you mean 'batch_size'", ("data.bach_size=8",)),
    Case("unknown deep key", r"^data\.augment\.jitter\.hues: .*'hue'.*Allowed: p, b", ("data.augment.jitter.hues=0",)),
    Case("unknown key in a stage", r"^stages\.2\.nose: .*Did you mean 'noise'", ("stages.2.nose.std=0",)),
    Case("unknown key in a stage's section", r"^stages\.2\.noise\.sd: .*value 0.*'std'", ("stages.2.noise.sd=0",)),
    Case("stage that is not there", r"^stages\.9: there is no stage 9\. .*4 blocks.*1 to 4", ("stages.9.device=cpu",)),
    Case("stage zero", r"^stages\.0: there is no stage 0\. .*1 to 4", ("stages.0.device=cpu",)),
    Case("stage by name", r"^stages\.first: 'first' is not the number of a stage", ("stages.first.device=cpu",)),
    Case("stages as a list", r"^stages: got \[1\] .*numbers of stages", ("stages=[1]",)),
    Case("section as a value", r"^data: got 3 where a section was expected\. Its keys are name, root", ("data=3",)),
    Case("empty section", r"^data: got null where a section", ("data=",)),
    Case("key twice", r"config\.yaml', line 2, column 1 .*'seed' occurs twice", text="seed: 1\nseed: 2\n"),
    # types
    Case("text for a number", r"^data\.batch_size: got 'many'\. It should be an integer", ("data.batch_size=many",)),
    Case("fraction for a count", r"^train\.epochs: got 1\.5\. It should be an integer", ("train.epochs=1.5",)),
    Case("number for a switch", r"^data\.drop_last: got 1\. It should be true or false", ("data.drop_last=1",)),
    Case("switch for a number", r"^seed: got true\. It should be an integer", ("seed=true",)),
    Case("number for text", r"^run_dir: got 7\. It should be text; quote it", ("run_dir=7",)),
    Case("value for a list", r"^model\.cuts: got 'layer1'\. It should be a list", ("model.cuts=layer1",)),
    Case("list too short", r"^data\.mean: got \[0\.5\]\. It should be a list of 3", ("data.mean=[0.5]",)),
    Case("list too long", r"^data\.augment\.blur_p: got \[0, 0, 0\]\. .*of 2", ("data.augment.blur_p=[0,0,0]",)),
    # ranges
    Case("negative batch", r"^data\.batch_size: got -4\. .*greater than or equal to 1", ("data.batch_size=-4",)),
    Case("batch of one", r"^data\.batch_size: got 1, and batch norm needs two\. Give 2", ("data.batch_size=1",)),
    Case("projector of zero", r"^head\.projector\.1: got 0\. .*greater than 0", ("head.projector=[8,0]",)),
    Case("negative noise", r"^noise\.std: got -0\.1\. .*greater than or equal to 0", ("noise.std=-0.1",)),
    Case("learning rate of 0", r"^optimizer\.lr: got 0\.?0?\. .*greater than 0", ("optimizer.lr=0",)),
    Case("learning rate not a number", r"^optimizer\.lr: got NaN\. .*(finite|greater)", ("optimizer.lr=.nan",)),
    Case("infinite weight", r"^objective\.lambd: got Infinity\. .*finite number", ("objective.lambd=.inf",)),
    Case("mean not a number", r"^data\.mean\.1: got NaN\. .*finite number", ("data.mean=[0, .nan, 0]",)),
    Case("no epochs", r"^train\.epochs: got 0\. .*greater than 0", ("train.epochs=0",)),
    Case("no steps", r"^train\.max_steps: got 0\. .*greater than 0", ("train.max_steps=0",)),
    Case("negative seed", r"^seed: got -1\. .*greater than or equal to 0", ("seed=-1",)),
    Case("no threads", r"^threads: got 0\. .*greater than 0", ("threads=0",)),
    Case("link without room", r"^link\.depth: got 0\. .*greater than or equal to 1", ("link.depth=0",)),
    Case("timeout of 0", r"^link\.timeout: got 0\.?0?\. .*greater than 0", ("link.timeout=0",)),
    Case("port out of range", r"^metrics\.port: got 70000\. .*65535", ("metrics.port=70000",)),
    Case("filter of 2", r"^head\.filter: unknown value 2\. Allowed: 1 or 3", ("head.filter=2",)),
    Case("countless views", r"^data\.views\.0\.count: got 9+\. .*equal to 64", ("data.views=[{count: 999999999}]",)),
    Case("crop reversed", r"crop_scale: got \[1\.0, 0\.1\].*Give \[0\.1, 1\.0\]", ("data.augment.crop_scale=[1,0.1]",)),
    Case("crop above 1", r"crop_scale: got \[0\.5, 2\.0\].*up to 1\.0", ("data.augment.crop_scale=[0.5,2]",)),
    Case("in a stage", r"^stages\.3\.optimizer\.lr: got -1\. .*greater than 0", ("stages.3.optimizer.lr=-1",)),
    # choices
    Case("noise kind", r"^noise\.kind: unknown value 'al'\. Did you mean 'all'\?.*c_legacy", ("noise.kind=al",)),
    Case("backbone", r"^model\.backbone: .*'resnet5'\. Did you mean 'resnet50'", ("model.backbone=resnet5",)),
    Case("data set", r"^data\.name: unknown value 'cifar'\. Did you mean 'cifar10", ("data.name=cifar",)),
    Case(
        "own data", r"^data\.name: there is no module 'nowhere'.*Install it, or start in", ("data.name=nowhere:faces",)
    ),
    Case("link kind", r"^link\.kind: unknown value 'ipc'\. .*Allowed: auto, queue, rpc", ("link.kind=ipc",)),
    Case("device", r"^device: got 'gpu'\. It should be auto, cpu, cuda, or cuda:N", ("device=gpu",)),
    Case("kind in a stage", r"^stages\.2\.noise\.kind: .*'hv'\. Did you mean 'hw'", ("stages.2.noise.kind=hv",)),
    # cuts
    Case(
        "unknown cut", r"^model\.cuts: 'layer9' is not a module of resnet18\. .*Allowed: stem", ("model.cuts=[layer9]",)
    ),
    Case("unknown unit", r"^model\.cuts: 'layer2\.7' .*'layer2.*layer2\.0 to layer2\.1", ("model.cuts=[layer2.7]",)),
    Case("cuts out of order", r"^model\.cuts: .*order.*Give \['layer1', 'layer2'\]", ("model.cuts=[layer2,layer1]",)),
    Case("same cut twice", r"^model\.cuts: .*once\. Give \['layer1'\]", ("model.cuts=[layer1,layer1]",)),
    Case("cut at the end", r"^model\.cuts: .*'layer4', the last.*Remove it", ("model.cuts=[layer1,layer4]",)),
    # together
    Case(
        "warm-up as long as training",
        r"^optimizer\.warmup_epochs: a warm-up of 2(\.0)? epochs .*Give less than train\.epochs=2",
        ("optimizer.warmup_epochs=2",),
    ),
    # overrides
    Case("override without =", r"^override 'seed' is not of the form key=value\. Example", ("seed",)),
    Case("override without key", r"^override '=3' is not of the form key=value", ("=3",)),
    Case("override into a scalar", r"^device\.kind: 'device' is the value 'cpu', .*device=VALUE", ("device.kind=1",)),
    Case(
        "override into a list",
        r'^model\.cuts\.0: .*\["layer1"\], not a section',
        ("model.cuts=[layer1]", "model.cuts.0=a"),
    ),
    Case("override that is no YAML", r"^seed: '\[1' is not a valid YAML value\. Quote", ("seed=[1",)),
    # the file
    Case("missing file", r"^configuration file 'config\.yaml' does not exist\. Give the path", text=""),
    Case(
        "folder",
        r"^configuration file 'config\.yaml' is a folder\.",
        text="",
        prepare=lambda f: (f / "config.yaml").mkdir(),
    ),
    Case(
        "syntax error",
        r"^'config\.yaml', line 3, column 1 is not valid YAML: .*opened in line 2\. Correct",
        text="seed: 1\nrun_dir: [a\n",
    ),
    Case("tabs", r"^'config\.yaml', line 2, column 1 is not valid YAML", text="data:\n\tname: cifar10\n"),
    Case("impossible date", r"^'config\.yaml' is not valid YAML: month must be", text="run_dir: 2020-99-99\n"),
    Case("list", r"^'config\.yaml' holds a list, not a mapping\. Write 'key: value'", text="- seed\n- 1\n"),
    Case("plain text", r"^'config\.yaml' holds a str, not a mapping", text="train please\n"),
    Case("not UTF-8", r"^configuration file 'config\.yaml' is not text \(byte 6 .*UTF-8", text=b"seed: \xff\xfe"),
    Case("binary", r"config\.yaml'.*(not valid YAML|not text)", text=bytes(range(256))),
    # the data
    Case("no data folder named", r"^data\.root: image_folder needs a folder.*data\.root=FOLDER", ("data.root=null",)),
    Case("data folder missing", r"nowhere' is not a folder\. Give", ("data.root=nowhere",)),
    Case("data folder empty", r"images/train' holds no class folders\. Images must", prepare=empty_folder),
    Case("class folder empty", r"images/train/class9' holds no image\. Add", prepare=empty_class),
    Case("file that is no image", r"images/train/class0/1\.png' cannot be decoded .*Replace", prepare=broken_image),
    Case("image cut short", r"images/train/class1/2\.png' cannot be decoded .*Replace", prepare=cut_image),
    Case("batch above the data", r"^data\.batch_size: .*64 .*8 images.*at most 8", ("data.batch_size=64",)),
    Case(
        "last batch of one",
        r"data\..*8 images .* 7 .*one image.*drop_last",
        ("data.batch_size=7", "data.drop_last=false"),
    ),
    # the machine
    Case("GPU without GPUs", r"^device: got 'cuda', .*0 GPUs.*device=cpu", ("device=cuda",)),
    Case("more stages than GPUs", r"^device: .*4 processes and 2 GPUs.*device=auto", ("device=cuda",), gpus=2),
    Case("GPU of a stage", r"^stages\.2\.device: got 'cuda:5' .*2 GPUs", ("stages.2.device=cuda:5",), gpus=2),
    Case("unknown host", r"^metrics\.host: 'no host' .*127\.0\.0\.1", ("metrics.enabled=true", "metrics.host=no host")),
    Case(
        "host of another machine",
        r"^metrics\.host: '192\.0\.2\.1' is not an address of this machine.*127\.0\.0\.1",
        ("metrics.enabled=true", "metrics.host=192.0.2.1"),
    ),
    # the run directory
    Case(
        "earlier run",
        r"^run_dir: 'old' already holds a run with another configuration: train\.epochs is 300 there, 2 here; .*"
        r"Give another run_dir",
        ("run_dir=old",),
        prepare=earlier_run,
    ),
    Case(
        "weights that are not there",
        r"^init_from\.path: '.*/no\.pth' does not exist\. Give a run",
        ("init_from=no.pth",),
    ),
    Case("weights of text", r"^init_from\.path: '.*' is neither a safetensors", ("init_from=config.yaml",)),
    Case("weights of a folder", r"^init_from\.path: '.*images' is a folder, and neither", ("init_from=images",)),
    Case("weights of a stage", r"^stages\.2\.init_from\.path: .*no\.pth' does", ("stages.2.init_from=no.pth",)),
    Case("weights as a number", r"^init_from: got 7", ("init_from=7",)),
    Case("all frozen", r"all stages are frozen", tuple(f"stages.{index}.frozen=true" for index in range(1, 5))),
    Case("folder in use", r"^run_dir: 'old' is not empty .*'notes\.txt'", ("run_dir=old",), prepare=other_files),
    Case("run_dir is a file", r"^run_dir: .*config\.yaml' is not a folder", ("run_dir=config.yaml",)),
    Case("run_dir below a file", r"^run_dir: .*config\.yaml' is not a folder", ("run_dir=config.yaml/a/b",)),
]


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(
    case: Case,
    command: str,
    folder: Path,
    tree: Callable[[Path], object],
    onward: Callable[..., Any],
    assert_refused: Callable[[Any, str], None],
    fake_training: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if case.text is not None:
        (folder / "config.yaml").unlink()
    if case.text:
        (folder / "config.yaml").write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    case.prepare(folder)
    monkeypatch.setattr(launch.prepare.preflight, "count_gpus", lambda: case.gpus)
    before = tree(folder)
    assert_refused(onward(command, "config.yaml", *case.overrides), case.expected)
    assert tree(folder) == before, "something was written"
    assert fake_training == [], "training was started"
