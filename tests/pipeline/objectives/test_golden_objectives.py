"""Every objective's loss and gradients are those of its released code, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import objectives as settings
from pipeline.objectives.barlow_twins import barlow_twins_loss
from pipeline.objectives.byol import byol_loss
from pipeline.objectives.lejepa import lejepa_loss
from pipeline.objectives.simclr import nt_xent_loss
from pipeline.objectives.vicreg import EPSILON, vicreg_loss
from tests.pipeline.golden import Golden, folders

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
Loss = tuple[Tensor, dict[str, Tensor]]


def vicreg(z1: Tensor, z2: Tensor, golden: Golden, entry: dict[str, Any]) -> Loss:
    assert entry["std_eps"] == EPSILON
    return vicreg_loss(
        z1,
        z2,
        settings.VICRegConfig(
            invariance_weight=entry["sim_coeff"],
            variance_weight=entry["std_coeff"],
            covariance_weight=entry["cov_coeff"],
        ),
    )


RELEASED: dict[str, Callable[[Tensor, Tensor, Golden, dict[str, Any]], Loss]] = {
    "barlow_twins": lambda z1, z2, _, entry: barlow_twins_loss(z1, z2, entry["lambd"], entry["scale"]),
    "simclr": lambda z1, z2, _, entry: nt_xent_loss(z1, z2, entry["temperature"]),
    "vicreg": vicreg,
    "byol": lambda z1, z2, golden, _: byol_loss((z1, z2), (golden.tensor("t1"), golden.tensor("t2"))),
}


@pytest.fixture(scope="module", params=folders(), ids=lambda folder: folder.parent.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def test_every_golden_objective_is_compared(golden: Golden) -> None:
    """An entry that no test of ours reads would look as if it agreed."""
    names = list(golden.settings["objectives"])
    assert all(any(name.startswith(kind) for name in names) for kind in RELEASED)
    assert all(any(name.startswith(kind) for kind in RELEASED) for name in names)


@pytest.mark.parametrize("kind", RELEASED)
def test_loss_and_gradients(golden: Golden, kind: str) -> None:
    for name, entry in golden.settings["objectives"].items():
        if not name.startswith(kind):
            continue
        z1, z2 = (golden.tensor(z).requires_grad_() for z in ("z1", "z2"))
        loss, _ = RELEASED[kind](z1, z2, golden, entry["params"])
        loss.backward()
        torch.testing.assert_close(loss.item(), entry["loss"], **CLOSE)
        torch.testing.assert_close(z1.grad, golden.tensor(f"obj_{name}_g1"), **CLOSE)
        torch.testing.assert_close(z2.grad, golden.tensor(f"obj_{name}_g2"), **CLOSE)


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.parent.name)
def test_lejepa_of_any_number_of_views(folder: Path) -> None:
    """Its file has its own form: the directions belong to the data."""
    with np.load(folder / "lejepa.npz", allow_pickle=False) as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    names = {name.split("/")[0] for name in golden}
    assert len(names) >= 4
    for name in names:
        z = golden[f"{name}/z"].requires_grad_()
        knots, t_max, lambd = golden[f"{name}/constants"].tolist()
        config = settings.LeJEPAConfig(knots=int(knots), t_max=t_max, lambd=lambd)
        loss, terms = lejepa_loss(z, golden[f"{name}/directions"], config, global_views=len(z))
        loss.backward()
        found = {"loss": loss.detach(), "gradient": z.grad, **terms}
        for part, value in found.items():
            torch.testing.assert_close(value, golden[f"{name}/{part}"], **CLOSE)
