"""A loss of one's own: one file anywhere, one line of configuration, the same bits in both runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.validation.loading import parse_config
from tests.pipeline.small import small_config, train

FILE = """
import torch
from torch import nn
from pipeline.objectives import Embeddings, Objective

class Cosine(Objective):
    def __init__(self, width: int, weight: float = 1.0) -> None:
        super().__init__()
        self.weight, self.mixer = weight, nn.Linear(width, width)

    def forward(self, embeddings: Embeddings):
        z1, z2, *_ = embeddings.views
        agreement = torch.cosine_similarity(self.mixer(z1), z2).mean()
        return self.weight * (1 - agreement), {"agreement": agreement.detach()}

class Counting(Cosine):
    def forward(self, embeddings: Embeddings):
        loss, terms = super().forward(embeddings)
        return loss, {**terms, "labels": embeddings.labels.float().mean()}

class Following(Cosine):
    uses_target = True

class NoLoss(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the current directory; another one in every test, because imports are remembered."""
    name = f"losses_of_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_loss_from_a_file_trains_with_its_own_weights(own: str) -> None:
    config = small_config(objective={"kind": f"{own}:Cosine", "options": {"weight": 2.0}})
    reports = train(config, 3)
    assert all(0 < report.loss < 4 for step in reports for report in step)
    assert reports[2][0].terms["agreement"] == pytest.approx(1 - reports[2][0].loss / 2, abs=1e-6)
    assert [[r.loss for r in step] for step in train(config, 3)] == [[r.loss for r in step] for step in reports]


def test_it_may_use_the_labels(own: str) -> None:
    config = small_config(objective={"kind": f"{own}:Counting"})
    assert config.uses_labels
    assert train(config, 1)[0][0].terms["labels"] == 1.5


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        ("Cosines", {}, r"objective\.kind: .* has no function 'Cosines'\. Did you mean 'Cosine'"),
        (
            "Cosine",
            {"wieght": 1},
            r"objective\.options: .*wieght.*Its arguments are \(width: int, weight: float = 1\.0\)",
        ),
        ("NoLoss", {}, r"objective\.kind: .*no pipeline\.objectives\.Objective.*Derive"),
        ("Following", {}, r"objective\.kind: .*target network\. Only byol"),
    ],
)
def test_one_that_cannot_be_used_is_refused(own: str, loss: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(objective={"kind": f"{own}:{loss}", "options": options})


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.kind: there is no module 'nowhere'"):
        parse_config({"objective": {"kind": "nowhere:Loss"}})
