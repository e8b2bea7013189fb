"""The configuration of a run: every key, its unit, its default and what it accepts; one file a section.

The models are frozen and refuse unknown keys, so a misspelt key is an error and never a silent
default. The package imports without torch: `onward check` and the launcher answer at once.
Defaults are those of the released code of "Blockwise Self-Supervised Learning at Scale" (its
`train.sh`), except where a key has no counterpart there. Loading lives in `pipeline.validation.loading`.
"""

from pipeline.config.base import Section
from pipeline.config.data import Augment, Data, Jitter
from pipeline.config.evaluation import Evaluation
from pipeline.config.heads import Head
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
