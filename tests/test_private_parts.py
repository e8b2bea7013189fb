"""Private parts of libraries that are used: a release that takes one away is noticed here, not by a user."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torchvision.datasets
from torch._C import _distributed_c10d
from torch._dynamo import config as dynamo
from torch.distributed import FileStore, ProcessGroupGloo
from torch.utils import _python_dispatch, _pytree

from pipeline.data.augment.resizing import _in_place, fastest_resize
from workers.links import pair_group as pair


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        *((torch, f"_foreach_{operation}") for operation in ("add", "add_", "copy_", "mul_", "norm", "sub_")),
        (torch, "_foreach_lerp_"),
        (torch._C._nn, "_upsample_bicubic2d_aa"),
        (torch.Tensor, "_version"),
        (ProcessGroupGloo, "_Options"),
        (_distributed_c10d, "_dump_nccl_trace_json"),
        (dynamo, "recompile_limit"),
        (dynamo, "accumulated_recompile_limit"),
        (dynamo, "fail_on_recompile_limit_hit"),
        (_python_dispatch, "TorchDispatchMode"),
        (_pytree, "tree_leaves"),
    ],
)
def test_it_is_there(holder: object, name: str) -> None:
    assert hasattr(holder, name), f"{name} is gone: its fallback is used, or one is needed"


@pytest.mark.parametrize("name", ["FER2013", "Country211", "RenderedSST2", "Food101", "SUN397", "FGVCAircraft"])
def test_data_sets_of_torchvision_still_list_their_files(name: str) -> None:
    source = inspect.getsource(getattr(torchvision.datasets, name))
    assert any(part in source for part in ("_samples", "_image_files", "make_dataset", "ImageFolder")), name


def test_images_are_resized_in_place() -> None:
    assert fastest_resize() is _in_place, "else views are made by the public function, more slowly"


def test_a_pair_is_formed_without_the_private_options_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    class Group:
        def __init__(self, *arguments: object) -> None:
            seen.append(arguments)

    monkeypatch.setattr(pair, "ProcessGroupGloo", Group)
    store = FileStore(str(tmp_path / "store"), 2)
    pair._gloo_group(store, 0, "127.0.0.1", 5.0)
    assert seen == [(store, 0, 2, timedelta(seconds=5))]
