"""The configuration of a run: every key, its unit, its default and what it accepts; one file a section.

The models are frozen and refuse unknown keys, so a misspelt key is an error and never a silent
default. The package imports without torch: `onward check` and the launcher answer at once.
Defaults are those of the released code of "Blockwise Self-Supervised Learning at Scale" (its
`train.sh`), except where a key has no counterpart there. Loading lives in `pipeline.validation.loading`.

- `base.py`: what every section of the configuration is made of: the strict base class and the number types
- `data.py`: `data`: what is trained on, and how views are made of it
- `engines.py`: `engine`: who holds the optimizer's state of a stage and applies its steps
- `evaluation.py`: `evaluation`: what is measured of the blocks: at the end of training, while it runs, and by `onward
  evaluate`
- `faults.py`: `faults`: what is to go wrong, and where; to try a recovery before it is needed
- `heads.py`: `head`: what turns a block's output into the embedding that its loss sees; thrown away after training
- `kinds.py`: sections that come in kinds, such as `objective`: which keys there are depends on the key `kind`
- `model.py`: `model`: the backbone, and where it is cut into blocks
- `network_sizes.py`: the sizes of the networks that have names here: channels, patches, heads, and what they allow;
  without torch
- `noise.py`: `noise`: what is added to a block's activations while training
- `objectives.py`: `objective`: the loss of a block
- `observing.py`: `metrics`, `alarms`, `trace`, `trackers`: what is seen of a run while it trains; none of it changes
  the training
- `optimizers.py`: `optimizer`: how a block's parameters move; the learning rate is a function of the step
- `places.py`: where an embedding is taken: a block, and which of its features; one name for all that measures
- `precision.py`: `precision`: the number formats and memory layouts that a stage computes in
- `run.py`: one run: every section together, and what each stage makes of them
- `secrets.py`: what a configuration may hold that others must not read, and the configuration without it
- `units.py`: the pieces of a network that are never cut, by name, and where a list of cuts parts them
"""

from pipeline.config.base import Section
from pipeline.config.data import AugmentConfig, DataConfig, JitterConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.heads import HeadConfig
from pipeline.config.model import ModelConfig
from pipeline.config.noise import NoiseConfig, NoiseKind
from pipeline.config.objectives import ObjectiveConfig
from pipeline.config.observing import AlarmsConfig, MetricsConfig, TraceConfig, TrackerConfig
from pipeline.config.optimizers import OptimizerConfig
from pipeline.config.precision import PrecisionConfig
from pipeline.config.run import Config, LinkConfig, StageConfig, StageOverrides, TrainConfig

__all__ = [
    "AlarmsConfig",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "HeadConfig",
    "JitterConfig",
    "LinkConfig",
    "MetricsConfig",
    "ModelConfig",
    "NoiseConfig",
    "NoiseKind",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PrecisionConfig",
    "Section",
    "StageConfig",
    "StageOverrides",
    "TraceConfig",
    "TrackerConfig",
    "TrainConfig",
]
