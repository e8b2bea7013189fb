"""The expansion in slices computes what its modules compute on the whole batch, with the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.backbones.chunked_expansion import expand_in_chunks

PRECISE = {"rtol": 1e-11, "atol": 1e-12}


def modules(filter: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, filter, padding=filter // 2, bias=False), nn.BatchNorm2d(5)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias):
            tensor.normal_()
    return convolution.double(), norm.double()


def images() -> Tensor:
    return torch.randn(7, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("filter", [1, 3])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_it_is_the_modules_one_after_the_other(filter: int, chunk: int) -> None:
    """Also where the last slice is smaller, and with what batch norm remembers."""
    results = []
    for in_slices in (False, True):
        convolution, norm = modules(filter)
        x = images()
        features = (
            expand_in_chunks(x, convolution, norm, chunk)
            if in_slices
            else F.relu(norm(convolution(x))).mean(dim=(2, 3))
        )
        (features * torch.linspace(-1, 1, 35, dtype=torch.float64).view(7, 5)).sum().backward()
        gradients = [x.grad, *(p.grad for p in (*convolution.parameters(), *norm.parameters()))]
        results.append([features, *gradients, norm.running_mean, norm.running_var])
        assert norm.num_batches_tracked == 1
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, **PRECISE)


class InSlices(nn.Module):
    def __init__(self, chunk: int) -> None:
        super().__init__()
        self.convolution, self.norm = modules(1)
        self.chunk = chunk

    def forward(self, x: Tensor) -> Tensor:
        return expand_in_chunks(x, self.convolution, self.norm, self.chunk)


def test_the_gradient_by_finite_differences() -> None:
    """In float64, with respect to the images and to every parameter."""
    network = InSlices(3)
    names = [name for name, _ in network.named_parameters()]

    def features(x: Tensor, *parameters: Tensor) -> Tensor:
        output: Tensor = functional_call(network, dict(zip(names, parameters, strict=True)), (x,))
        return output

    assert torch.autograd.gradcheck(features, (images(), *network.parameters()))


def test_no_map_is_kept_and_none_of_the_whole_batch_exists() -> None:
    network, x = InSlices(2), images()
    kept: list[Tensor] = []
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            largest = max([largest, *(t.numel() for t in tree_leaves(result) if isinstance(t, Tensor))])
            return result

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with Largest():
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = network(x).square().sum()
        loss.backward()
    assert max(t.numel() for t in kept) == x.numel()
    assert largest == x.numel() < 7 * 5 * 4 * 6


def test_in_half_precision_the_gradient_of_the_kernel_is_added_up_in_float32() -> None:
    """The slices' gradients are of 2^-8 relative accuracy; their sum is not rounded to it again."""
    convolution, norm = (module.float() for module in modules(1))
    x = images().detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        features = expand_in_chunks(x, convolution, norm, 2)
    assert features.dtype == torch.bfloat16
    features.float().square().sum().backward()
    assert convolution.weight.grad is not None
    assert x.grad is not None
    assert convolution.weight.grad.dtype == torch.float32
    assert x.grad.dtype == torch.bfloat16
    assert not torch.equal(convolution.weight.grad, convolution.weight.grad.bfloat16().float())
