"""The optimizers by hand and against each other, which parameters they spare, and that their state is all they need."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from pipeline.config import optimizers as settings
from pipeline.optim import Lars, LarsClipped, LarsLrInMomentum, build_optimizer, parameter_groups

LAYER_WISE = [Lars, LarsLrInMomentum, LarsClipped]
CONFIGS = {
    "lars": settings.LarsConfig(eta=0.1, weight_decay=0.1, momentum=0.8),
    "lars_lr_in_momentum": settings.LarsLrInMomentumConfig(eta=0.1, weight_decay=0.1, momentum=0.8),
    "lars_clipped": settings.LarsClippedConfig(eta=0.1, weight_decay=0.1, momentum=0.8, eps=1e-6),
    "sgd": settings.SGDConfig(weight_decay=0.1, momentum=0.8),
    "nesterov": settings.SGDConfig(nesterov=True),
    "adamw": settings.AdamWConfig(betas=(0.8, 0.95), eps=1e-6),
}
CLASSES = [*LAYER_WISE, torch.optim.SGD, torch.optim.SGD, torch.optim.AdamW]


def matrix(*values: float) -> nn.Parameter:
    """One row, float64."""
    return nn.Parameter(torch.tensor([values], dtype=torch.float64))


def move(optimizer: torch.optim.Optimizer, p: nn.Parameter, lr: float, *gradient: float) -> list[float]:
    """Where one step of `optimizer` moves the row `p`."""
    p.grad = torch.tensor([gradient], dtype=torch.float64)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return p.tolist()[0]


def random_gradients(parameters: list[nn.Parameter], step: int) -> None:
    source = torch.Generator().manual_seed(step)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=source, dtype=p.dtype)


def random_parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    source = torch.Generator().manual_seed(99)
    return [nn.Parameter(torch.randn(shape, generator=source, dtype=dtype)) for shape in [(4, 3), (4,), (2, 3, 3, 3)]]


def train(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], lrs: list[float], first: int = 0) -> None:
    for step, lr in enumerate(lrs, first):
        random_gradients(parameters, step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_ratio", 1.0)
        optimizer.step()


class TestByHand:
    """The row (3, 4) has the norm 5; with weight decay 0.1 the gradient (0.3, -0.4) becomes (0.6, 0)."""

    def test_lars(self) -> None:
        p = matrix(3, 4)
        lars = Lars([p], lr=0.0, weight_decay=0.1, momentum=0.5, eta=0.06)
        # ratio 0.06 * 5 / 0.6 = 0.5
        assert move(lars, p, 10.0, 0.3, -0.4) == pytest.approx([0, 4])
        # decayed (0, 0.8), ratio 0.06 * 4 / 0.8 = 0.3, buffer 0.5 * (0.3, 0) + (0, 0.24)
        assert move(lars, p, 1.0, 0.0, 0.4) == pytest.approx([-0.15, 3.76])
        assert lars.state[p]["momentum"].tolist()[0] == pytest.approx([0.15, 0.24])

    def test_lars_with_the_rate_in_the_momentum(self) -> None:
        p = matrix(3, 4)
        lars = LarsLrInMomentum([p], lr=0.0, weight_decay=0.1, momentum=0.5, eta=0.06)
        assert move(lars, p, 10.0, 0.3, -0.4) == pytest.approx([0, 4])
        assert lars.state[p]["momentum"].tolist()[0] == pytest.approx([3, 0]), "the first buffer is the first update"
        # buffer 0.5 * (3, 0) + 1.0 * (0, 0.24)
        assert move(lars, p, 1.0, 0.0, 0.4) == pytest.approx([-1.5, 3.76])
        assert lars.state[p]["momentum"].tolist()[0] == pytest.approx([1.5, 0.24])

    def test_clipped_lars(self) -> None:
        # rate 0.06 * 5 / (0.5 + 0.1 * 5 + 1) = 0.15
        for lr, ratio in [(0.3, 0.5), (0.15, 1.0), (0.1, 1.0), (0.0, 1.0)]:
            p = matrix(3, 4)
            lars = LarsClipped([p], lr=0.0, weight_decay=0.1, momentum=0.5, eta=0.06, eps=1.0)
            assert move(lars, p, lr, 0.3, -0.4) == pytest.approx([3 - lr * ratio * 0.6, 4])
            assert lars.state[p]["momentum"].tolist()[0] == pytest.approx([ratio * 0.6, 0])

    def test_clipped_lars_multiplies_its_buffer_by_the_rate_of_the_step(self) -> None:
        p = matrix(3, 4)
        lars = LarsClipped([p], lr=0.0, momentum=0.5, eta=0.02)
        # rate 0.02 * 5 / 0.5 = 0.2, over lr 0.4
        assert move(lars, p, 0.4, 0.3, 0.4) == pytest.approx([3 - 0.06, 4 - 0.08])
        # rate above lr: clipped to 1
        assert move(lars, p, 0.01, 0.3, 0.4) == pytest.approx([2.94 - 0.01 * 0.375, 3.92 - 0.01 * 0.5])

    @pytest.mark.parametrize(("weight", "expected"), [(0.0, 2.4), (0.25, 2.475), (1.0, 2.7)])
    @pytest.mark.parametrize("kind", [Lars, LarsLrInMomentum])
    def test_the_weight_of_the_scaling(self, kind: type[Lars], weight: float, expected: float) -> None:
        p = matrix(3, 4)
        lars = kind([p], lr=0.0, weight_decay=0.1, eta=0.06, lars_weight=weight)
        # 3 - 0.6 * (0.5 * weight + 1 - weight)
        assert move(lars, p, 1.0, 0.3, -0.4) == pytest.approx([expected, 4])

    @pytest.mark.parametrize(("weight", "expected"), [(0.0, 2.4), (0.5, 2.49), (1.0, 2.58)])
    def test_the_weight_of_the_clipped_scaling(self, weight: float, expected: float) -> None:
        p = matrix(3, 4)
        lars = LarsClipped([p], lr=0.0, weight_decay=0.1, eta=0.14, lars_weight=weight, eps=1e-12)
        # rate 0.14 * 5 / (0.5 + 0.5) = 0.7: 3 - 0.6 * (0.7 * weight + 1 - weight)
        assert move(lars, p, 1.0, 0.3, -0.4) == pytest.approx([expected, 4])


class TestZeros:
    @pytest.mark.parametrize("kind", LAYER_WISE)
    def test_a_parameter_of_zeros_is_not_scaled(self, kind: type[Lars]) -> None:
        p = matrix(0, 0)
        assert move(kind([p], lr=0.0, weight_decay=0.1, eta=0.06), p, 2.0, 0.3, -0.4) == pytest.approx([-0.6, 0.8])

    @pytest.mark.parametrize("kind", LAYER_WISE)
    def test_nothing_moves_a_parameter_without_gradient_and_weight_decay(self, kind: type[Lars]) -> None:
        p = matrix(3, 4)
        assert move(kind([p], lr=0.0), p, 2.0, 0.0, 0.0) == [3, 4]

    @pytest.mark.parametrize(("kind", "expected"), [(Lars, 2.82), (LarsLrInMomentum, 2.82), (LarsClipped, 3.0)])
    def test_weight_decay_alone_is_scaled_as_an_update_or_left_out_as_in_apex(
        self, kind: type[Lars], expected: float
    ) -> None:
        p = matrix(3, 4)
        # decayed (0.3, 0.4), ratio 0.06 * 5 / 0.5 = 0.6
        assert move(kind([p], lr=0.0, weight_decay=0.1, eta=0.06), p, 1.0, 0.0, 0.0)[0] == pytest.approx(expected)

    @pytest.mark.parametrize("kind", LAYER_WISE)
    def test_a_parameter_that_was_given_no_gradient_stays(self, kind: type[Lars]) -> None:
        p = matrix(3, 4)
        optimizer = kind([p], lr=1.0, weight_decay=0.1)
        optimizer.step()
        assert p.tolist() == [[3, 4]]
        assert not optimizer.state


class TestEquivalences:
    LRS = (0.0, 0.3, 1.2, 0.8, 0.05)

    @pytest.mark.parametrize("kind", [Lars, LarsClipped])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_without_scaling_it_is_sgd_to_the_bit(self, kind: type[Lars], dtype: torch.dtype) -> None:
        ours, theirs = random_parameters(dtype), random_parameters(dtype)
        decay = [{"weight_decay": 0.1}, {"weight_decay": 0.0}, {"weight_decay": 0.1}]
        groups = [[{"params": [p], **d} for p, d in zip(side, decay, strict=True)] for side in (ours, theirs)]
        train(kind(groups[0], lr=0.0, momentum=0.9, lars_weight=0.0), ours, list(self.LRS))
        train(torch.optim.SGD(groups[1], lr=0.0, momentum=0.9), theirs, list(self.LRS))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

    @pytest.mark.parametrize(("lrs", "same"), [([0.3] * 5, True), ([0.3, 0.3, 0.6], False)])
    def test_where_the_rate_goes_matters_when_it_changes(self, lrs: list[float], same: bool) -> None:
        inside, outside = random_parameters(), random_parameters()
        train(LarsLrInMomentum(inside, lr=0.0, weight_decay=0.1, eta=0.1), inside, lrs)
        train(Lars(outside, lr=0.0, weight_decay=0.1, eta=0.1), outside, lrs)
        assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(inside, outside, strict=True)) == same

    def test_a_large_rate_and_no_decay_undo_the_clipping(self) -> None:
        clipped, plain = random_parameters(), random_parameters()
        train(LarsClipped(clipped, lr=0.0, momentum=0.0, eta=0.01, eps=1e-15), clipped, [1.0, 2.0])
        train(Lars(plain, lr=0.0, momentum=0.0, eta=0.01), plain, [1.0, 1.0])
        torch.testing.assert_close(clipped, plain)

    @pytest.mark.parametrize("kind", LAYER_WISE)
    def test_a_group_without_decay_and_scaling_is_sgd_whatever_the_others_are(self, kind: type[Lars]) -> None:
        vector, alone = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        others: dict[str, object] = {"params": random_parameters(), "weight_decay": 0.1}
        groups = [others, {"params": [vector], "lars_weight": 0.0}]
        train(kind(groups, lr=0.0), [vector], [0.5] * 3)
        train(torch.optim.SGD([alone], lr=0.0, momentum=0.9), [alone], [0.5] * 3)
        torch.testing.assert_close(vector, alone)

    @pytest.mark.parametrize("kind", LAYER_WISE)
    @pytest.mark.parametrize(("weight", "decay"), [(1.0, 0.1), (0.5, 0.0), (0.0, 0.1), (0.0, 0.0)])
    def test_a_step_leaves_the_gradients_alone(self, kind: type[Lars], weight: float, decay: float) -> None:
        parameters = random_parameters()
        optimizer = kind(parameters, lr=1.0, weight_decay=decay, lars_weight=weight)
        random_gradients(parameters, 0)
        before = [p.grad.clone() for p in parameters if p.grad is not None]
        optimizer.step()
        assert all(torch.equal(p.grad, b) for p, b in zip(parameters, before, strict=True))


class Mixed(nn.Module):
    """Every sort of parameter, out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.token = nn.Parameter(torch.ones(1, 1, 4))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.conv = nn.Conv2d(3, 4, 3)
        self.attention = nn.MultiheadAttention(4, 2)
        self.cross = nn.MultiheadAttention(4, 2, kdim=2, vdim=2, bias=False)
        self.linear = nn.Linear(4, 2)


NAMES = [name for name, _ in Mixed().named_parameters()]
VECTORS = [name for name in NAMES if name.startswith("norm.") or name.endswith("bias")]
EXCLUDED = {
    "dimension": VECTORS,
    "type": [name for name in NAMES if name in ("token", "scale", *VECTORS)],
    "none": [],
}


class TestGroups:
    @pytest.mark.parametrize("rule", EXCLUDED)
    def test_who_is_excluded(self, rule: str) -> None:
        module = Mixed()
        names = {id(p): name for name, p in module.named_parameters()}
        groups = parameter_groups(module, rule, 0.1, 0.5, lars_weight=0.75)
        members = [[names[id(p)] for p in group.pop("params")] for group in groups]
        regular = [name for name in NAMES if name not in EXCLUDED[rule]]
        assert members == [part for part in (regular, EXCLUDED[rule]) if part]
        of_regular = {"weight_decay": 0.1, "lr_ratio": 1.0, "lars_weight": 0.75}
        of_excluded = {"weight_decay": 0.0, "lr_ratio": 0.5, "lars_weight": 0.0}
        assert groups == [of_regular, of_excluded][: len(groups)]

    def test_a_group_without_parameters_is_left_out(self) -> None:
        (only,) = parameter_groups(nn.BatchNorm1d(3), "dimension", 0.1)
        assert only["weight_decay"] == 0.0
        (only,) = parameter_groups(nn.Linear(2, 2, bias=False), "type", 0.1)
        assert only["weight_decay"] == 0.1

    def test_a_shared_weight_is_in_one_group_once(self) -> None:
        first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        second.weight = first.weight
        (only,) = parameter_groups(nn.ModuleList([first, second]), "type", 0.1)
        assert len(only["params"]) == 1

    def test_lars_weight_is_a_setting_of_layer_wise_optimizers_only(self) -> None:
        assert all("lars_weight" not in group for group in parameter_groups(Mixed(), "type", 0.1))


class TestBuild:
    @pytest.mark.parametrize(("kind", "expected"), list(zip(CONFIGS, CLASSES, strict=True)))
    def test_the_kind_and_its_settings(self, kind: str, expected: type[torch.optim.Optimizer]) -> None:
        config = CONFIGS[kind]
        optimizer = build_optimizer(config, Mixed())
        assert type(optimizer) is expected
        regular, excluded = optimizer.param_groups
        assert regular["lr"] == excluded["lr"] == 0.0
        assert (regular["weight_decay"], excluded["weight_decay"]) == (config.weight_decay, 0.0)
        own = set(type(config).model_fields) - set(settings.ScheduledConfig.model_fields) - {"kind", "lars_weight"}
        assert own
        assert {key: regular[key] for key in own} == {key: getattr(config, key) for key in own}
        assert ("lars_weight" in regular) == ("lars" in kind)

    def test_the_excluded_may_have_a_rate_of_their_own(self) -> None:
        optimizer = build_optimizer(settings.LarsConfig(lr=0.2, bias_lr=0.0048), Mixed())
        assert [group["lr_ratio"] for group in optimizer.param_groups] == [1.0, pytest.approx(0.024)]
        optimizer = build_optimizer(settings.LarsConfig(lr=0.2), Mixed())
        assert [group["lr_ratio"] for group in optimizer.param_groups] == [1.0, 1.0]

    def test_exclusion_and_weight_come_from_the_configuration(self) -> None:
        by_type = build_optimizer(settings.LarsConfig(exclude="type", lars_weight=0.5), Mixed())
        assert [group["lars_weight"] for group in by_type.param_groups] == [0.5, 0.0]
        assert len(by_type.param_groups[1]["params"]) == len(EXCLUDED["type"])
        assert len(build_optimizer(settings.AdamWConfig(exclude="none"), Mixed()).param_groups) == 1

    @pytest.mark.parametrize("kind", CONFIGS)
    def test_the_first_step_of_a_warmup_moves_nothing(self, kind: str) -> None:
        module = Mixed()
        before = deepcopy(list(module.parameters()))
        train(build_optimizer(CONFIGS[kind], module), list(module.parameters()), [0.0])
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))

    @pytest.mark.parametrize("kind", CONFIGS)
    def test_a_saved_state_goes_on_as_if_nothing_had_happened(self, kind: str) -> None:
        lrs = [0.0, 0.3, 1.2, 0.8, 0.05, 0.4]
        straight, torn = Mixed(), Mixed()
        torn.load_state_dict(straight.state_dict())
        train(build_optimizer(CONFIGS[kind], straight), list(straight.parameters()), lrs)
        before = build_optimizer(CONFIGS[kind], torn)
        train(before, list(torn.parameters()), lrs[:3])
        resumed = Mixed()
        resumed.load_state_dict(deepcopy(torn.state_dict()))
        after = build_optimizer(CONFIGS[kind], resumed)
        after.load_state_dict(deepcopy(before.state_dict()))
        train(after, list(resumed.parameters()), lrs[3:], first=3)
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), straight.parameters(), strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(resumed.parameters(), torn.parameters(), strict=True))

    @pytest.mark.parametrize("kind", ["lars", "lars_lr_in_momentum", "lars_clipped"])
    def test_the_state_is_one_buffer_a_parameter_called_momentum(self, kind: str) -> None:
        module = Mixed()
        optimizer = build_optimizer(CONFIGS[kind], module)
        train(optimizer, list(module.parameters()), [0.1])
        state: list[tuple[nn.Parameter, dict[str, Tensor]]] = list(optimizer.state.items())
        assert len(state) == len(list(module.parameters()))
        assert all({key: value.shape for key, value in kept.items()} == {"momentum": p.shape} for p, kept in state)
