"""Steps on fake tensors of a GPU, without one: the names of the operations that CUDA would be asked for.

PyTorch's autograd engine refuses such tensors where there is no driver, so the nodes of a backward pass are called here
one after the other, as the engine would. What the kernels do inside, such as which attention a GPU takes, shows only on
one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import Config
from pipeline.data.augment.resolution import view_sizes
from pipeline.replicas import SOLO
from pipeline.serial import end_to_end_step
from pipeline.shapes import view_shapes
from pipeline.stage.fake import FakeReplicaGroup, make_fake
from pipeline.stage.stage import Stage
from workers.topology.rendezvous import link_spec

CUDA = torch.device("cuda", 0)


class NameRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Collects the names of all operations, such as `aten.cudnn_batch_norm`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names.add(str(func.overloadpacket))
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1  # nothing is in a fake tensor
        return func(*args, **(kwargs or {}))


class FakeCudaStage(Stage):
    """A stage whose parameters and buffers are fake tensors on a GPU."""

    fake: FakeTensorMode

    def _make_ready(self, device: torch.device, dtype: torch.dtype) -> None:
        super()._make_ready(torch.device("cpu"), dtype)
        make_fake(self, self.fake)
        with self.fake:
            for part in self.modules():
                for name, parameter in part._parameters.items():
                    if parameter is not None:
                        moved = nn.Parameter(parameter.detach().to(CUDA), parameter.requires_grad)
                        part._parameters[name] = moved
                for name, buffer in part._buffers.items():
                    if buffer is not None:
                        part._buffers[name] = buffer.to(CUDA)


def operations_of(config: Config) -> set[str]:
    """The operations of a step of every stage, forward, backward and optimizer, on a GPU."""
    fake, recorder = FakeTensorMode(allow_non_fake_inputs=True), NameRecorder()
    FakeCudaStage.fake = fake
    with ExitStack() as stack:
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_: True))
        stack.enter_context(patch("torch.autograd.backward", _backward))
        stack.enter_context(patch("torch._C._current_graph_task_id", lambda: 1))  # checkpoints recompute once for each
        for drawing in ("pipeline.stage.noise", "pipeline.objectives.lejepa"):
            stack.enter_context(patch(f"{drawing}.generator", lambda device, *key: None))
        team = FakeReplicaGroup(0, config.replicas) if config.replicas > 1 else SOLO
        stages = [FakeCudaStage(config, index, 1, CUDA, team=team) for index in range(1, config.num_stages + 1)]
        if config.mode == "end_to_end" and stages[-1].target is not None:  # as `build_stages` does
            with fake, warnings.catch_warnings():  # copying a fake tensor asks for its address
                warnings.simplefilter("ignore")
                stages[-1].follow_with_target(nn.Sequential(*(stage.block for stage in stages)))
            stages[-1].remember_buffers()
        for stage in stages:
            for group in stage.optimizer.param_groups:
                group.update(foreach=True) if "foreach" in group else None  # what PyTorch takes on a GPU
        labels = torch.zeros(config.data.batch_size, dtype=torch.int64)
        stack.enter_context(fake)
        for_loss = labels.to(CUDA) if config.uses_labels else None
        stack.enter_context(recorder)
        if config.mode == "end_to_end":
            list(end_to_end_step(stages, _batch(config, 1), 0, [1.0] * len(stages), for_loss, None))
        else:
            for stage in stages:
                stage(_batch(config, stage.index), 0, 1.0)
                stage.update(0, for_loss)
    return recorder.names


def _batch(config: Config, index: int) -> list[Tensor]:
    shapes = view_shapes(config, index, view_sizes(config.data, 0, config.num_views))
    dtype = torch.uint8 if index == 1 else link_spec(config, index).dtype
    rows = config.data.batch_size // config.replicas
    return [torch.empty((rows, *shape), dtype=dtype, device=CUDA) for shape in shapes]


def _backward(root: Tensor, gradient: Tensor | None = None) -> None:
    """As `torch.autograd.backward` for one tensor."""
    assert root.grad_fn is not None
    waiting = {root.grad_fn: {0: torch.ones_like(root) if gradient is None else gradient}}
    with torch.no_grad():
        for node in _in_order(root.grad_fn):
            gradients = waiting.pop(node, {})
            if node.name().endswith("AccumulateGrad"):
                leaf = node.variable
                leaf.grad = gradients[0] if leaf.grad is None else leaf.grad + gradients[0]
                continue
            call = node if callable(node) else node.apply  # of an `autograd.Function`
            results = call(*(gradients.get(number) for number in range(max(gradients, default=0) + 1)))
            for (follower, number), result in zip(
                node.next_functions, results if isinstance(results, tuple) else (results,), strict=False
            ):
                if follower is not None and result is not None:
                    expected = follower._input_metadata[number]
                    result = result.sum_to_size(expected.shape).to(expected.dtype)
                    sums = waiting.setdefault(follower, {})
                    sums[number] = sums[number] + result if number in sums else result


def _in_order(root: Any) -> list[Any]:
    """The nodes of a backward pass, each after all those that lead to it."""
    done: list[Any] = []
    seen, path = {root}, [(root, iter(root.next_functions))]
    while path:
        node, following = path[-1]
        for follower, _ in following:
            if follower is not None and follower not in seen:
                seen.add(follower)
                path.append((follower, iter(follower.next_functions)))
                break
        else:
            done.append(node)
            path.pop()
    return done[::-1]
