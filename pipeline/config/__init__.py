"""The configuration of a run: every key with its unit, default and allowed values; one file per section.

The models are frozen and refuse unknown keys, so a misspelt key is an error and never a silent
default. The package imports without torch: `onward check` and the launcher answer at once.
Defaults are those of the released code of "Blockwise Self-Supervised Learning at Scale" (its
`train.sh`), except where a key has no counterpart there. Loading lives in `pipeline.validation.loading`.

- `base.py`: the strict base class of all sections, and the number types
- `data.py`: `data`: the data set, and how views are made of its images
- `digests.py`: `digests`: what a run writes down of its bits, so that they can be verified later
- `engines.py`: `engine`: the library that holds the optimizer's state of a stage and applies its steps
- `evaluation.py`: `evaluation`: measurements of the blocks: at the end of training, while it runs, and by `onward
  evaluate`
- `faults.py`: `faults`: fault injection, to test recovery before it is needed
- `heads.py`: `head`: computes the embedding that the loss reads from a block's output; discarded after training
- `initial.py`: `init_from`: the weights that a run, or one of its stages, begins with
- `kinds.py`: sections with several kinds, such as `objective`: the key `kind` decides which other keys exist
- `memory.py`: `memory`: what a stage keeps of its forward pass for its backward pass, and what it computes again
  instead
- `model.py`: `model`: the backbone, and where it is cut into blocks
- `network.py`: `network`: how the processes of a run on several hosts reach each other
- `network_sizes.py`: the sizes of the named networks: channels, patches, heads, and checks of them; without torch
- `noise.py`: `noise`: noise on a block's activations while training
- `objectives.py`: `objective`: the loss of a block
- `observing.py`: `metrics`, `alarms`, `trace`, `trackers`: monitoring of a run; none of it changes the training
- `optimizers.py`: `optimizer`: optimizers and learning-rate schedules, which are functions of the step
- `places.py`: the place at which a feature is taken: a block, and its trunk, expansion or projector
- `precision.py`: `precision`: number formats and memory layouts of a stage
- `run.py`: the whole configuration of a run, and the part of each stage
- `secrets.py`: removes from a configuration what others must not read
- `units.py`: the names of the pieces of a network that are never cut, and how a list of cuts divides them
"""

from pipeline.config.base import Section
from pipeline.config.data import AugmentConfig, DataConfig, JitterConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.heads import HeadConfig
from pipeline.config.memory import MemoryConfig
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
    "MemoryConfig",
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
