"""What `onward evaluate` takes: the network, batches on their way through it, the features, and what is made of them.

A batch goes through the product's own stages, in evaluation mode, on tensors without memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from launch.plan.account import DataFacts, EvaluationAccount
from launch.plan.fake_stage import FakeStage, fake_stages
from launch.plan.live_bytes import LiveBytes
from pipeline.config import Config
from pipeline.config.places import Place
from pipeline.evaluation.blocks import FEATURES
from pipeline.evaluation.features import embed, places_of
from pipeline.measures.knn import MEMORY_BYTES
from pipeline.measures.linear import fitting_bytes
from pipeline.stage.fake import without_engines
from workers.evaluating.extraction import Extractor
from workers.evaluating.quality import quality_bytes

NUMBER = 4
"""Bytes of one number of a feature, float32."""


def evaluation_account(config: Config, data: DataFacts, device: str) -> EvaluationAccount:
    """What `onward evaluate` of a run takes, with the settings of its configuration.

    Args:
        config: of the run.
        data: as far as they are known.
        device: that it computes on, as torch names it.

    Raises:
        RuntimeError: an operation of the user's own network has no fake form.
    """
    config, settings = without_engines(config), config.evaluation
    fake, live = FakeTensorMode(allow_non_fake_inputs=True), LiveBytes()
    stages = fake_stages(config, range(1, config.num_stages + 1), live, fake)
    at_end = places_of(stages, FEATURES)
    classified = tuple(dict.fromkeys((*at_end, *places_of(stages, settings.places, settings.blocks))))
    measured = places_of(stages, dict.fromkeys(settings.quality.places), settings.blocks)
    batch, widths = _one_batch(config, stages, dict.fromkeys((*classified, *measured)), live, fake)
    network = sum(tensor.nbytes for stage in stages for tensor in (*stage.parameters(), *stage.buffers()))
    rows = settings.batch_size
    batches = Extractor(config, stages, torch.device(device)).at_once(rows)
    if data.images is not None:
        batches = min(batches, -(-data.images // rows))
    return _joined(
        config,
        data,
        device=device,
        network=network,
        batch=batch,
        batches=batches,
        widths=[widths[place] for place in classified],
        at_end=[widths[place] for place in at_end],
        measured=[widths[place] for place in measured],
    )


def _joined(
    config: Config,
    data: DataFacts,
    *,
    device: str,
    network: int,
    batch: int,
    batches: int,
    widths: Sequence[int],
    at_end: Sequence[int],
    measured: Sequence[int],
) -> EvaluationAccount:
    settings, per_image = config.evaluation, NUMBER * sum(widths)
    computing = network + batches * batch
    features = fitting = quality = peak = end = None
    moment = ""
    if data.images is not None:
        images, tests, classes = data.images, data.test_images or 0, data.classes or 0
        features = (images + tests) * per_image
        fitting = fitting_bytes(images, tests, max(widths), classes)
        quality = _quality(config, images, measured)
        on_host, held = computing if device == "cpu" else 0, 0 if settings.cache else features
        copies = NUMBER * (images + tests) * max(widths)  # of the features of one place, for some probes
        untrained = network if device == "cpu" and "quick" in settings.linear else 0
        neighbours = MEMORY_BYTES if settings.knn.k else 0
        moments = {
            "extracting features": on_host + untrained + held,
            "fitting probes": network + held + copies + max(fitting, neighbours),
            "measuring quality": on_host + held + quality,
        }
        moment = max(moments, key=lambda name: moments[name])
        peak = moments[moment]
        end = _at_end(config, on_host, (images + tests) * NUMBER * sum(at_end), fitting)
    return EvaluationAccount(
        device=device,
        network=network,
        batch=batch,
        batches=batches,
        features_per_image=per_image,
        features=features,
        features_on_disk=settings.cache,
        fitting=fitting,
        quality=quality,
        host_peak=peak,
        gpu_peak=0 if device == "cpu" else 2 * network + batch,
        moment=moment,
        end_of_training=end,
    )


def _at_end(config: Config, computing: int, features: int, fitting: int) -> int:
    """`finish_run` keeps all features in memory, first while they are made and then while probes are fitted."""
    return features + max(computing, fitting) if config.evaluation.linear_probe else 0


def _quality(config: Config, images: int, widths: Sequence[int]) -> int:
    settings = config.evaluation.quality
    if not settings.enabled or not widths:
        return 0
    rows = min(settings.samples, images) * settings.views
    return quality_bytes([rows * width for width in widths], rows)


def _one_batch(
    config: Config, stages: Sequence[FakeStage], places: Collection[Place], live: LiveBytes, fake: FakeTensorMode
) -> tuple[int, dict[Place, int]]:
    """What one batch takes on its way through the network, at most, and the width of the feature at every place."""
    for stage in stages:
        stage.eval()
    size = config.data.image_size
    with fake:
        images = torch.empty((config.evaluation.batch_size, size, size, 3), dtype=torch.uint8)
        with live:
            live.adopt([images])
            live.begin()
            features = embed(stages, images, places)
    return live.peak, {place: rows.shape[1] for place, rows in features.items()}
