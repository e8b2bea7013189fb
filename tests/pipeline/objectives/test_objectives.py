"""What every objective has in common: finite differences, symmetries, edges, its settings, what it asks for."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor

from pipeline.config import objectives as settings
from pipeline.config.kinds import kinds_of
from pipeline.errors import ConfigError
from pipeline.objectives import OBJECTIVES, Embeddings, Objective, build_objective
from pipeline.objectives.byol import byol_loss

WIDTH = 5
CASES = {
    "barlow_twins": settings.BarlowTwinsConfig(lambd=0.3, scale=2.0),
    "simclr": settings.SimCLRConfig(temperature=0.5),
    "simclr_single_patch": settings.SimCLRConfig(temperature=0.5, negatives="single_patch"),
    "vicreg": settings.VICRegConfig(),
    "byol": settings.BYOLConfig(predictor=(7, WIDTH)),
    "lejepa": settings.LeJEPAConfig(directions=16, global_views=2),
    "supervised": settings.SupervisedConfig(label_smoothing=0.1),
}
TERMS = {
    "barlow_twins": {"on_diagonal", "off_diagonal"},
    "simclr": {"contrast_accuracy"},
    "simclr_single_patch": {"contrast_accuracy"},
    "vicreg": {"invariance", "variance", "covariance"},
    "byol": {"similarity"},
    "lejepa": {"sigreg", "prediction"},
    "supervised": {"accuracy"},
}


def draw(seed: int, batch: int, width: int = WIDTH) -> Tensor:
    return torch.randn(batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_embeddings(batch: int = 6) -> Embeddings:
    """All that any objective may want; each takes its own."""
    views = draw(1, batch), draw(2, batch)
    return Embeddings(views, (draw(4, batch), draw(5, batch)), torch.arange(batch) % WIDTH, draw(3, batch))


def same_everywhere(z: Tensor) -> Embeddings:
    return Embeddings((z, z), (z, z), torch.arange(len(z)) % WIDTH, z)


@pytest.fixture(params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objective(kind: str) -> Objective:
    return build_objective(CASES[kind], WIDTH, seed=0, stage=1).double()


def test_every_kind_of_the_configuration_has_its_objective() -> None:
    kinds = set(kinds_of(settings.ObjectiveConfig)) - {"custom"}
    assert set(OBJECTIVES) == kinds == {config.kind for config in CASES.values()}


def test_the_loss_is_a_scalar_and_the_terms_are_detached_scalars(objective: Objective, kind: str) -> None:
    embeddings = random_embeddings()
    views = tuple(view.requires_grad_() for view in embeddings.views)
    loss, terms = objective(replace(embeddings, views=views))
    assert loss.shape == ()
    assert loss.requires_grad
    assert set(terms) == TERMS[kind]
    assert all(term.shape == () and not term.requires_grad for term in terms.values())


def test_the_gradient_by_finite_differences(objective: Objective) -> None:
    given = random_embeddings()

    def loss_of(z1: Tensor, z2: Tensor, patch: Tensor) -> Tensor:
        loss: Tensor = objective(replace(given, views=(z1, z2), patch=patch))[0]
        return loss

    assert given.patch is not None
    assert torch.autograd.gradcheck(loss_of, tuple(z.requires_grad_() for z in (*given.views, given.patch)))


def test_the_order_of_the_images_does_not_matter(objective: Objective) -> None:
    given = random_embeddings()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert given.labels is not None
    assert given.patch is not None
    shuffled = Embeddings(
        tuple(view[order] for view in given.views),
        tuple(target[order] for target in given.targets),
        given.labels[order],
        given.patch[order],
    )
    assert_same_result(objective(given), objective(shuffled))


def test_which_view_is_first_does_not_matter(objective: Objective) -> None:
    given = random_embeddings()
    swapped = replace(given, views=given.views[::-1], targets=given.targets[::-1])
    assert_same_result(objective(given), objective(swapped))


def test_which_image_belongs_to_which_matters(objective: Objective) -> None:
    given = random_embeddings()
    z1, z2 = given.views
    mismatched = replace(given, views=(z1, z2.roll(1, dims=0)))
    assert objective(given)[0].item() != pytest.approx(objective(mismatched)[0].item(), rel=1e-6)


def assert_same_result(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [2, 6])
@pytest.mark.parametrize("fill", ["random", "identical images", "zeros"])
def test_the_edges_are_finite(kind: str, dtype: torch.dtype, batch: int, fill: str) -> None:
    """Two images, views that are equal, embeddings that have collapsed to one point or to nothing."""
    z = {"random": draw(1, batch), "identical images": draw(1, 1).expand(batch, -1), "zeros": torch.zeros(batch, WIDTH)}
    leaf = z[fill].to(dtype).clone().requires_grad_()
    loss, terms = build_objective(CASES[kind], WIDTH, seed=0, stage=1).to(dtype)(same_everywhere(leaf))
    loss.backward()
    assert loss.dtype == dtype
    assert leaf.grad is not None
    for number in (loss, leaf.grad, *terms.values()):
        assert number.isfinite().all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("barlow_twins", 2.0 * WIDTH),
        ("simclr", log(7)),
        ("simclr_single_patch", log(2)),
        ("vicreg", 25 * 0.99),
        ("supervised", log(WIDTH)),
    ],
)
def test_what_embeddings_of_zeros_cost(name: str, expected: float) -> None:
    loss, _ = build_objective(CASES[name], WIDTH, 0, 1)(same_everywhere(torch.zeros(4, WIDTH, dtype=torch.float64)))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_single_patch_without_a_patch_is_an_error() -> None:
    objective = build_objective(CASES["simclr_single_patch"], WIDTH, 0, 1)
    with pytest.raises(ValueError, match="needs two views and the negative patch"):
        objective(Embeddings((draw(1, 4), draw(2, 4))))


def test_simclr_leaves_a_patch_alone_that_is_meant_for_another_stage() -> None:
    objective = build_objective(CASES["simclr"], WIDTH, 0, 1)
    given = random_embeddings()
    assert_same_result(objective(given), objective(Embeddings(given.views)))


def test_byol_predicts_each_view_with_statistics_of_its_own() -> None:
    objective = build_objective(CASES["byol"], WIDTH, 0, 1).double()
    given = random_embeddings()
    p1, p2 = (objective.get_submodule("predictor")(z) for z in given.views)
    assert_same_result(objective(given), byol_loss((p1, p2), given.targets))


def test_byol_trains_its_predictor_and_not_the_targets() -> None:
    objective = build_objective(CASES["byol"], WIDTH, 0, 1).double()
    given = random_embeddings()
    objective(given)[0].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters())
    assert not any(target.requires_grad for target in given.targets)


def test_the_predictor_has_the_layers_of_the_report_and_its_own_weights_in_every_stage() -> None:
    states = [
        build_objective(CASES["byol"], WIDTH, seed, stage).state_dict() for seed, stage in [(0, 1), (0, 2), (1, 1)]
    ]
    again = build_objective(CASES["byol"], WIDTH, 0, 1).state_dict()
    trained = [name for name in again if not name.startswith("predictor.1.")]
    assert trained == ["predictor.0.weight", "predictor.3.weight", "predictor.3.bias"]
    for name in trained:
        assert torch.equal(states[0][name], again[name])
        assert not torch.equal(states[0][name], states[1][name])
        assert not torch.equal(states[0][name], states[2][name])


def test_a_predictor_of_another_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.predictor.*256.*5") as refused:
        build_objective(settings.BYOLConfig(predictor=(4096, 256)), WIDTH, 0, 1)
    assert refused.value.path == "objective.predictor"


@pytest.mark.parametrize(("name", "missing"), [("byol", "targets"), ("supervised", "labels")])
def test_what_an_objective_needs_it_says(name: str, missing: str) -> None:
    objective = build_objective(CASES[name], WIDTH, 0, 1)
    assert (objective.uses_target, objective.uses_labels) == (missing == "targets", missing == "labels")
    with pytest.raises(ValueError, match=missing):
        objective(Embeddings((torch.ones(4, WIDTH), torch.ones(4, WIDTH))))


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("byol", "supervised")])
def test_most_objectives_need_two_views_only(name: str) -> None:
    objective = build_objective(CASES[name], WIDTH, 0, 1)
    assert (objective.uses_target, objective.uses_labels) == (False, False)


@pytest.mark.parametrize("name", [name for name in CASES if name != "byol"])
def test_an_objective_without_weights_adds_nothing_to_the_state(name: str) -> None:
    assert not build_objective(CASES[name], WIDTH, 0, 1).state_dict()


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (settings.BarlowTwinsConfig(), {"lambd": 0.5}),
        (settings.BarlowTwinsConfig(), {"scale": 0.5}),
        (settings.SimCLRConfig(), {"temperature": 0.5}),
        (settings.SimCLRConfig(), {"negatives": "single_patch"}),
        (settings.VICRegConfig(), {"invariance_weight": 1.0}),
        (settings.VICRegConfig(), {"variance_weight": 1.0}),
        (settings.VICRegConfig(), {"covariance_weight": 2.0}),
        (settings.VICRegConfig(), {"std_halved": False}),
        (settings.BYOLConfig(predictor=(7, WIDTH)), {"predictor": (WIDTH,)}),
        (settings.LeJEPAConfig(), {"lambd": 0.5}),
        (settings.LeJEPAConfig(), {"directions": 16}),
        (settings.LeJEPAConfig(), {"knots": 5}),
        (settings.LeJEPAConfig(), {"t_max": 5.0}),
        (settings.LeJEPAConfig(), {"global_views": 1}),
        (settings.SupervisedConfig(), {"label_smoothing": 0.3}),
    ],
    ids=str,
)
def test_every_key_changes_the_loss(config: settings.ObjectiveConfig, changed: dict[str, object]) -> None:
    # Small embeddings, so that the standard deviations stay below the hinge of VICReg.
    given = random_embeddings()
    small = replace(given, views=tuple(view / 4 for view in given.views))
    losses = [
        build_objective(c, WIDTH, 0, 1).double()(small)[0].item() for c in (config, config.model_copy(update=changed))
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)
