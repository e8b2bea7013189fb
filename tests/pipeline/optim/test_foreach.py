"""Layer-wise steps on lists of parameters: the bits of a loop over them, bounded lists, few kernels on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import optimizer as base
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import optimizers as settings
from pipeline.optim import Lars, LarsClipped, LarsLrInMomentum, build_optimizer, foreach
from pipeline.optim.lars import _LayerWise

LAYER_WISE = [Lars, LarsLrInMomentum, LarsClipped]
OPERATIONS = ("add", "add_", "sub_", "mul_", "norm")
SHAPES = [(), (1,), (7,), (64,), (1001,), (5, 0), (33, 17), (64, 3, 7, 7), (64, 64, 1, 1), (64, 64, 3, 3), (3, 32769)]
SCALED = len(SHAPES) // 2


def parameters_of(dtype: torch.dtype, channels_last: bool, source: torch.Generator) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.randn(shape, generator=source, dtype=dtype)) for shape in SHAPES]
    parameters[2].data.zero_()
    for p in parameters:
        p.data = in_layout(p.data, channels_last)
    return parameters


def in_layout(x: Tensor, channels_last: bool) -> Tensor:
    return x.to(memory_format=torch.channels_last) if channels_last and x.ndim == 4 else x


def trained(kind: type[Lars], dtype: torch.dtype, channels_last: bool) -> list[Tensor]:
    """Parameters and momenta after three steps, of which some gradients have other strides or are zero."""
    source = torch.Generator().manual_seed(7)
    parameters = parameters_of(dtype, channels_last, source)
    groups: list[dict[str, Any]] = [
        {"params": parameters[::2], "weight_decay": 0.1, "lars_weight": 1.0},
        {"params": parameters[1:SCALED:2], "weight_decay": 0.0, "lars_weight": 0.0},
        {"params": parameters[SCALED + (SCALED + 1) % 2 :: 2], "weight_decay": 0.01, "lars_weight": 0.3},
    ]
    optimizer = kind(groups, lr=0.0, momentum=0.9)
    for step, lr in enumerate((0.0, 0.3, 0.1)):
        for i, p in enumerate(parameters):
            p.grad = in_layout(torch.randn(p.shape, generator=source, dtype=dtype), channels_last and bool(i % 3))
            p.grad.mul_(0.0 if i == 4 and step == 1 else 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    assert len(optimizer.state) == len(parameters)
    return [tensor for p in parameters for tensor in (p.detach(), optimizer.state[p]["momentum"])]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def without_lists(patch: pytest.MonkeyPatch) -> None:
    """As with a release of torch that has none of its private operations."""
    for operation in OPERATIONS:
        patch.setattr(foreach, operation, partial(foreach.one_by_one, operation))


def one_parameter_a_list(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_LayerWise, "piece_bytes", 0)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", LAYER_WISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_lists_have_the_bits_of_a_loop_over_the_parameters(
    kind: type[Lars], dtype: torch.dtype, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = trained(kind, dtype, channels_last)
    for change in (without_lists, one_parameter_a_list):
        change(monkeypatch)
        for ours, looped in zip(at_once, trained(kind, dtype, channels_last), strict=True):
            assert torch.equal(ours, looped)
            assert ours.stride() == looped.stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_a_scalar_factor_is_rounded_first(dtype: torch.dtype) -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(1)).to(dtype)
    y = x.clone()
    foreach.mul_([x], 0.9)
    foreach.one_by_one("mul_", [y], 0.9)
    torch.testing.assert_close(x, y, rtol=2 * torch.finfo(dtype).eps, atol=0.0)


def test_each_tensor_gets_its_own_or_the_common_argument() -> None:
    ones = [torch.ones(2), torch.ones(3)]
    sums = foreach.one_by_one("add", ones, (torch.ones(2), torch.zeros(3)), alpha=2)
    assert [x.tolist() for x in sums] == [[3, 3], [1, 1, 1]]
    assert [float(x) for x in foreach.one_by_one("norm", [torch.tensor([3.0, 4.0]), torch.zeros(1)])] == [5, 0]
    assert foreach.one_by_one("mul_", ones, 4.0)[0] is ones[0]
    assert ones[1].tolist() == [4, 4, 4]


def sizes(pieces: Iterable[list[Tensor]]) -> list[list[int]]:
    return [[len(x) for x in piece] for piece in pieces]


class TestPieces:
    def test_none_is_larger_than_allowed_unless_it_is_one_tensor(self) -> None:
        floats = [torch.zeros(n) for n in (1, 2, 9, 1, 1, 2, 1)]
        assert sizes(foreach.pieces(floats, 16)) == [[1, 2], [9], [1, 1, 2], [1]]
        assert sizes(foreach.pieces(floats, 1 << 20)) == [[1, 2, 9, 1, 1, 2, 1]]

    def test_each_has_one_dtype_and_device_and_no_tensor_is_left_out(self) -> None:
        kinds = [torch.zeros(1), torch.zeros(2, dtype=torch.float64), torch.zeros(3), torch.zeros(4, device="meta")]
        assert sizes(foreach.pieces(kinds)) == [[1, 3], [2], [4]]

    def test_they_are_short_on_the_cpu_and_long_elsewhere(self) -> None:
        half = foreach.CACHED_BYTES // 8
        assert sizes(foreach.pieces(torch.zeros(half) for _ in range(3))) == [[half, half], [half]]
        assert sizes(foreach.pieces(torch.zeros(half, device="meta") for _ in range(3))) == [[half] * 3]

    def test_of_nothing_there_is_none(self) -> None:
        assert not list(foreach.pieces([]))


class _Operations(TorchDispatchMode):
    """Counts what computes something; neither views nor questions for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name.startswith("aten.") and not name.startswith(("aten.unbind", "aten._local_scalar_dense")):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


CONFIGS: dict[str, Any] = {
    "lars": settings.LarsConfig(exclude="none"),
    "lars_lr_in_momentum": settings.LarsLrInMomentumConfig(exclude="none"),
    "lars_clipped": settings.LarsClippedConfig(exclude="none"),
    "sgd": settings.SGDConfig(exclude="none"),
    "nesterov": settings.SGDConfig(nesterov=True, exclude="none"),
    "adamw": settings.AdamWConfig(exclude="none"),
}


def operations_of_a_step(config: Any, layers: int, device: str) -> Counter[str]:
    """Of the second step, on tensors of `device` that have no memory; the first makes the state."""
    with FakeTensorMode():
        module = nn.Sequential(*(nn.Linear(4, 3, device=device) for _ in range(layers)))
        optimizer = build_optimizer(config, module)
        for p in module.parameters():
            p.grad = torch.empty_like(p)
        optimizer.step()
        with _Operations() as operations:
            optimizer.step()
    return operations.count


@pytest.mark.parametrize("kind", CONFIGS)
def test_on_a_gpu_every_optimizer_works_on_all_parameters_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's own choose lists by the type of the parameters, which is another one for tensors without memory.
    types = [*base._foreach_supported_types, FakeTensor]
    monkeypatch.setattr(base, "_foreach_supported_types", types)
    few, many = (operations_of_a_step(CONFIGS[kind], layers, "cuda") for layers in (1, 8))
    assert few == many
    assert any(name.startswith("aten._foreach") for name in many)


def test_what_counts_the_operations_sees_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    one_parameter_a_list(monkeypatch)
    assert (
        operations_of_a_step(CONFIGS["lars"], 8, "cuda").total()
        == 8 * operations_of_a_step(CONFIGS["lars"], 1, "cuda").total()
    )
    assert (
        operations_of_a_step(CONFIGS["sgd"], 8, "cpu").total() > operations_of_a_step(CONFIGS["sgd"], 1, "cpu").total()
    )
