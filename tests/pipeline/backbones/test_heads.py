"""The heads: their features, their projectors, and what their weights are drawn from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.backbones.heads import HEADS, as_map, build_head
from pipeline.config import heads as settings
from pipeline.config.kinds import kinds_of
from pipeline.randomness import seeded_initialisation

CHANNELS = 3
CASES: dict[str, settings.HeadConfig] = {
    "expansion": settings.ExpansionConfig(width=6, projector=(8, 7, 5)),
    "expansion_3x3": settings.ExpansionConfig(width=6, filter=3, projector=(8, 7, 5)),
    "gsp": settings.GlobalPoolingConfig(projector=(8, 7, 5)),
    "lsp": settings.LocalPoolingConfig(grid=2, projector=(8, 7, 5)),
}
FEATURE_WIDTHS = {"expansion": 6, "expansion_3x3": 6, "gsp": 3, "lsp": 12}


def activations(height: int = 5, width: int = 7) -> Tensor:
    return torch.randn(4, CHANNELS, height, width, generator=torch.Generator().manual_seed(1))


def changed(config: settings.HeadConfig, **values: object) -> settings.HeadConfig:
    copy: settings.HeadConfig = config.model_copy(update=values)
    return copy


def test_every_kind_of_the_configuration_has_its_head() -> None:
    assert set(HEADS) == set(kinds_of(settings.HeadConfig)) == {config.kind for config in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_the_shapes_of_feature_and_embedding(case: str) -> None:
    head = build_head(CASES[case], CHANNELS, seed=0, stage=1)
    assert head.features(activations()).shape == (4, FEATURE_WIDTHS[case])
    assert head(activations()).shape == (4, 5)
    assert head.embedding_width == 5
    assert [name for name, _ in head.named_children()] == ["expansion", "projector"][-len(list(head.children())) :]
    assert hasattr(head, "expansion") == case.startswith("expansion")


@pytest.mark.parametrize("case", CASES)
def test_the_embedding_is_the_projected_feature(case: str) -> None:
    head = build_head(CASES[case], CHANNELS, 0, 1)
    assert torch.equal(head(activations()), head.projector(head.features(activations())))


@pytest.mark.parametrize("case", CASES)
def test_every_weight_of_a_head_learns(case: str) -> None:
    head = build_head(changed(CASES[case], projector_bias=True), CHANNELS, 0, 1)
    head(activations()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_the_names_and_draws_of_the_default_head() -> None:
    """What is drawn for what: the expansion for the stage, the projector for the run, layer by layer."""
    state = build_head(CASES["expansion"], CHANNELS, seed=3, stage=2).state_dict()
    assert [name for name in state if state[name].dim() > 1] == [
        "expansion.0.weight",
        "projector.0.weight",
        "projector.3.weight",
        "projector.6.weight",
    ]
    with seeded_initialisation(3, "expansion", 2):
        convolution = nn.Conv2d(CHANNELS, 6, 1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    with seeded_initialisation(3, "projector"):
        linear = [nn.Linear(*sizes, bias=False).weight for sizes in ((6, 8), (8, 7), (7, 5))]
    assert torch.equal(state["expansion.0.weight"], convolution.weight)
    for position, weight in zip((0, 3, 6), linear, strict=True):
        assert torch.equal(state[f"projector.{position}.weight"], weight)


@pytest.mark.parametrize("case", CASES)
def test_projectors_start_equal_in_all_stages_unless_independent(case: str) -> None:
    for initialisation, equal in (("shared", True), ("independent", False)):
        config = changed(CASES[case], initialisation=initialisation)
        first, second, again = (build_head(config, CHANNELS, 0, stage).state_dict() for stage in (1, 2, 2))
        for name in [name for name, tensor in first.items() if tensor.dim() > 1]:
            assert torch.equal(second[name], again[name])
            assert torch.equal(first[name], second[name]) == (equal and name.startswith("projector"))


def test_the_seed_of_the_run_draws_other_weights() -> None:
    first, second = (build_head(CASES["expansion"], CHANNELS, seed, 1).state_dict() for seed in (0, 1))
    assert not any(torch.equal(first[name], second[name]) for name in first if first[name].dim() > 1)


@pytest.mark.parametrize("case", CASES)
def test_a_bias_is_added_to_the_last_layer_alone_and_changes_no_other_draw(case: str) -> None:
    without = build_head(CASES[case], CHANNELS, 0, 1).state_dict()
    state = build_head(changed(CASES[case], projector_bias=True), CHANNELS, 0, 1).state_dict()
    assert set(state) - set(without) == {"projector.6.bias"}
    assert all(torch.equal(state[name], without[name]) for name in without)


@pytest.mark.parametrize("case", CASES)
def test_a_norm_after_the_last_layer_standardises_the_embedding(case: str) -> None:
    head = build_head(changed(CASES[case], projector_norm=True), CHANNELS, 0, 1)
    embedding = head(activations())
    torch.testing.assert_close(embedding.mean(dim=0), torch.zeros(5), rtol=0, atol=1e-5)
    plain = build_head(CASES[case], CHANNELS, 0, 1)
    torch.testing.assert_close(embedding, F.batch_norm(plain(activations()), None, None, training=True))
    assert [name for name, _ in head.named_parameters()] == [name for name, _ in plain.named_parameters()]


@pytest.mark.parametrize("case", CASES)
def test_without_a_projector_the_feature_is_the_embedding(case: str) -> None:
    head = build_head(changed(CASES[case], projector=()), CHANNELS, 0, 1)
    assert head.embedding_width == FEATURE_WIDTHS[case]
    assert torch.equal(head(activations()), head.features(activations()))
    assert not any(name.startswith("projector") for name in head.state_dict())


def test_a_norm_without_a_projector_standardises_the_feature() -> None:
    head = build_head(settings.GlobalPoolingConfig(projector=(), projector_norm=True), CHANNELS, 0, 1)
    expected = F.batch_norm(head.features(activations()), None, None, training=True)
    torch.testing.assert_close(head(activations()), expected)


def test_global_pooling_averages_all_pixels() -> None:
    head = build_head(CASES["gsp"], CHANNELS, 0, 1)
    torch.testing.assert_close(head.features(activations()), activations().flatten(2).mean(dim=2))


def test_expansion_is_convolution_norm_relu_and_the_average() -> None:
    head = build_head(CASES["expansion_3x3"], CHANNELS, 0, 1)
    weight = head.get_parameter("expansion.0.weight")
    expected = F.batch_norm(F.conv2d(activations(), weight, padding=1), None, None, training=True).relu()
    torch.testing.assert_close(head.features(activations()), expected.mean(dim=(2, 3)))


def test_local_pooling_by_hand() -> None:
    """One channel of 2 x 4 pixels in a grid of 2 x 2: pairs of neighbours, row by row."""
    x = torch.arange(8.0).reshape(1, 1, 2, 4)
    head = build_head(settings.LocalPoolingConfig(grid=2, projector=()), 1, 0, 1)
    assert head.features(x).tolist() == [[0.5, 2.5, 4.5, 6.5]]


@pytest.mark.parametrize("grid", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(5, 7), (6, 6), (5, 12), (14, 9)])
def test_local_pooling_has_the_cells_of_adaptive_pooling(grid: int, size: tuple[int, int]) -> None:
    head = build_head(settings.LocalPoolingConfig(grid=grid, projector=()), CHANNELS, 0, 1)
    results = []
    for pool in (head.features, lambda x: F.adaptive_avg_pool2d(x, grid).flatten(1)):
        leaf = activations(*size).double().requires_grad_()
        pooled = pool(leaf)
        (gradient,) = torch.autograd.grad(pooled.square().sum(), leaf)
        results.append((pooled.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_tokens_are_a_map_one_pixel_wide() -> None:
    tokens = torch.randn(4, 6, CHANNELS, generator=torch.Generator().manual_seed(1))
    assert as_map(tokens).shape == (4, CHANNELS, 6, 1)
    assert torch.equal(as_map(tokens)[1, 2, :, 0], tokens[1, :, 2])
    assert torch.equal(as_map(activations()), activations())


@pytest.mark.parametrize("case", ["expansion", "gsp"])
def test_a_head_of_tokens_sees_all_of_them_and_not_their_order(case: str) -> None:
    head = build_head(CASES[case], CHANNELS, 0, 1)
    tokens = torch.randn(4, 6, CHANNELS, generator=torch.Generator().manual_seed(1))
    features = head.features(tokens)
    assert features.shape == (4, FEATURE_WIDTHS[case])
    torch.testing.assert_close(head.features(tokens.flip(1)), features)
    torch.testing.assert_close(head.features(tokens.transpose(1, 2).reshape(4, CHANNELS, 2, 3)), features)
    assert not torch.allclose(head.features(torch.cat((tokens[:, :-1], tokens[:, -1:] + 5), dim=1)), features)
