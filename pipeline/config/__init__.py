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
- `memory.py`: `memory`: what a stage keeps of its forward pass for its backward pass, and what it computes again
  instead
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
from pipeline.config.data import Augment, Data, Jitter
from pipeline.config.evaluation import Evaluation
from pipeline.config.heads import Head
from pipeline.config.memory import MemoryConfig
from pipeline.config.model import Model
from pipeline.config.noise import Noise, NoiseKind
from pipeline.config.objectives import Objective
from pipeline.config.observing import Alarms, Metrics, Trace, Tracker
from pipeline.config.optimizers import Optimizer
from pipeline.config.precision import Precision
from pipeline.config.run import Config, Link, StageConfig, StageOverrides, Train

__all__ = [
    "Alarms",
    "Augment",
    "Config",
    "Data",
    "Evaluation",
    "Head",
    "Jitter",
    "Link",
    "MemoryConfig",
    "Metrics",
    "Model",
    "Noise",
    "NoiseKind",
    "Objective",
    "Optimizer",
    "Precision",
    "Section",
    "StageConfig",
    "StageOverrides",
    "Trace",
    "Tracker",
    "Train",
]
