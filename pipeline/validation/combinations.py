"""Checks across sections: values that are valid alone and not together."""

from __future__ import annotations

from itertools import pairwise

from pipeline.config import Config, StageConfig
from pipeline.config.heads import ExpansionConfig, LocalPoolingConfig
from pipeline.config.kinds import SectionError
from pipeline.config.model import ModuleConfig
from pipeline.config.objectives import BYOLConfig, CustomConfig, LeJEPAConfig
from pipeline.data.augment.resolution import all_view_sizes
from pipeline.errors import ConfigError
from pipeline.shapes import block_output, check_model, embedding_width
from pipeline.validation.initial import check_frozen
from pipeline.validation.online import check_online
from pipeline.validation.pydantic_errors import explain
from pipeline.validation.topology import check_topology, key_of
from pipeline.validation.views import check_sizes, check_views, for_smallest


def check_combinations(config: Config, build: bool = True) -> None:
    """Raises `ConfigError` for the first combination that cannot work.

    Args:
        config: the validated configuration.
        build: whether a user's network may be imported and built. If not, checks that need its shapes are skipped,
            because they passed when the run began.
    """
    _check_stages(config)
    for index in range(1, config.num_stages + 1):  # before checks that may import and trace a network
        _check_optimizer(config, config.stage(index))
    if isinstance(config.model, ModuleConfig) and not build:
        return
    _check_batch(config)
    _check_feed(config)
    _check_modes(config)
    check_frozen(config)
    check_views(config)
    check_topology(config)
    check_model(config)
    check_sizes(config)
    check_online(config)
    for index in range(1, config.num_stages + 1):
        stage = config.stage(index)
        for check in (_check_precision, _check_noise, _check_head, _check_objective, _check_weights):
            check(config, stage)


def _check_stages(config: Config) -> None:
    for index in config.stages:
        if not 1 <= index <= config.num_stages:
            raise ConfigError(
                f"stages.{index}",
                f"there is no stage {index}",
                f"The network is cut into {config.num_stages} blocks; stages are 1 to {config.num_stages}",
            )
        try:
            config.stage(index)
        except SectionError as error:
            raise explain(error.error.errors()[0], ["stages", str(index), error.section]) from None


def _check_batch(config: Config) -> None:
    if config.data.batch_size > 1:
        return
    kinds = {config.stage(index).objective.kind for index in range(1, config.num_stages + 1)}
    why = "batch norm needs two"
    if "simclr" in kinds:
        why = "simclr takes the other images of the batch for negatives, and there are none"
    raise ConfigError("data.batch_size", f"got 1, and {why}", "Give 2 or more; 256 and up is usual")


def _check_feed(config: Config) -> None:
    if config.data.feed == "stages" and config.data.on_error == "skip" and config.uses_labels:
        raise ConfigError(
            "data.on_error",
            "with data.feed=stages the coordinator sends the labels and does not know which image replaces a "
            "broken one",
            "Set data.on_error=fail or data.feed=coordinator",
        )


def _check_modes(config: Config) -> None:
    if config.mode == "sequential" and config.num_stages == 1:
        raise ConfigError(
            "mode",
            "'sequential' trains one block after the other, and the network is one block",
            "Give model.cuts, or mode=simultaneous, which is the same for one block",
        )
    if config.mode == "end_to_end":
        for index, overrides in config.stages.items():
            for section in ("head", "objective"):
                if index < config.num_stages and getattr(overrides, section):
                    raise ConfigError(
                        f"stages.{index}.{section}",
                        f"in mode end_to_end only the last block, stage {config.num_stages}, has a loss",
                        f"Remove it, or give it for stages.{config.num_stages}",
                    )
        _check_recompute(config)
    for index, overrides in config.stages.items():
        for key in ("tf32", "shared_scaler"):
            if key in overrides.precision:
                problem = "applies to the whole run, not to one stage"
                raise ConfigError(f"stages.{index}.precision.{key}", problem, f"Give precision.{key}")


def _check_recompute(config: Config) -> None:
    """End to end one gradient flows through all blocks, so either all or none of them are computed again by view."""
    stages = [config.stage(index) for index in range(1, config.num_stages + 1)]
    by_view = [stage.memory.recompute == "views" for stage in stages]
    if any(by_view) and not all(by_view):
        odd = stages[by_view.index(not by_view[0])]
        problem = "in mode end_to_end one gradient flows through all blocks, so 'views' is a matter of all or none"
        raise ConfigError(key_of(config, odd, "memory", "recompute"), problem, "Give memory.recompute=views for all")


def _check_weights(config: Config, stage: StageConfig) -> None:
    if stage.memory.recompute != "views" or not isinstance(config.model, ModuleConfig):
        return
    from pipeline.backbones.repeated_weights import repeated_weight  # the network is there, so torch is too

    if (name := repeated_weight(config.model, stage.index, config.data.image_size)) is not None:
        problem = f"got 'views', and block {stage.index} uses its weight '{name}' more than once in one pass"
        remedy = "View by view its gradients would be added up in another order. Give units, which is exact, or none"
        raise ConfigError(key_of(config, stage, "memory", "recompute"), problem, remedy)


def _check_optimizer(config: Config, stage: StageConfig) -> None:
    optimizer = stage.optimizer
    ends = (0, *config.train.restarts, config.train.epochs)
    if list(ends) != sorted(set(ends)):
        problem = f"got {list(config.train.restarts)}, and each restart comes after the one before, inside the training"
        raise ConfigError("train.restarts", problem, f"Give epochs from 1 to {config.train.epochs - 1}, each once")
    epochs = min(after - before for before, after in pairwise(ends))
    if optimizer.warmup_epochs >= epochs:
        shortest = "" if epochs == config.train.epochs else " from one of train.restarts to the next"
        raise ConfigError(
            key_of(config, stage, "optimizer", "warmup_epochs"),
            f"a warm-up of {optimizer.warmup_epochs:g} epochs takes all of the {epochs} epochs of training{shortest}",
            f"Give less than {epochs}, or train longer" if shortest else f"Give less than train.epochs={epochs}",
        )
    if optimizer.bias_lr is not None and optimizer.exclude == "none":
        raise ConfigError(
            key_of(config, stage, "optimizer", "bias_lr"),
            f"got {optimizer.bias_lr:g}, but optimizer.exclude=none leaves no parameters that it could apply to",
            "Give optimizer.exclude=dimension or type, or no bias_lr",
        )


def _check_precision(config: Config, stage: StageConfig) -> None:
    precision = stage.precision
    if precision.dtype == "fp16" and stage.device == "cpu":
        raise _no_fp16_on_cpu(key_of(config, stage, "precision", "dtype"))
    if precision.shared_scaler == "reference":
        if precision.dtype != "fp16":
            problem = f"only fp16 scales its loss, and precision.dtype is {precision.dtype}"
            raise ConfigError("precision.shared_scaler", problem, "Give precision.dtype=fp16, or shared_scaler=none")
        if not config.in_one_process:
            problem = "with 'reference' an overflow in any block skips the step of all, so blocks depend on each other"
            raise ConfigError("precision.shared_scaler", problem, "Give runtime=serial, or shared_scaler=none")


def _no_fp16_on_cpu(path: str) -> ConfigError:
    problem = "got 'fp16', and a CPU computes float16 slowly and without the range that training needs"
    return ConfigError(path, problem, "Give bf16 or fp32, or put the stage on a GPU (device=cuda)")


def check_devices(config: Config, devices: list[str]) -> None:
    """Check the precision again when the device of every stage is known; raises `ConfigError`."""
    for index, device in enumerate(devices, 1):
        stage = config.stage(index)
        if stage.precision.dtype == "fp16" and device == "cpu":
            raise _no_fp16_on_cpu(key_of(config, stage, "precision", "dtype"))


def _check_noise(config: Config, stage: StageConfig) -> None:
    noise = stage.noise
    at_input = noise.placement == "input"
    smallest = all_view_sizes(config.data)[0]
    if at_input and stage.index == 1:
        shape: tuple[int, ...] = (3, smallest, smallest)
    else:
        shape = block_output(config, stage.index - (1 if at_input else 0), smallest)
    path = key_of(config, stage, "noise", "kind")
    boundary = f"the {noise.placement} of stage {stage.index}{for_smallest(config)}"
    if len(shape) == 2:
        if noise.kind == "c_legacy":
            raise ConfigError(
                path, f"'c_legacy' is over height, and {boundary} is {shape[0]} tokens", "Give all, hw or c"
            )
        return
    _, height, width = shape
    if noise.relative and ((noise.kind == "hw" and height * width == 1) or (noise.kind == "c_legacy" and height == 1)):
        raise ConfigError(
            path,
            f"'{noise.kind}' takes a standard deviation over pixels, and {boundary} is {height}x{width}",
            f"Give stages.{stage.index}.noise.kind=all, or a larger data.image_size",
        )


def _check_head(config: Config, stage: StageConfig) -> None:
    head, shape = stage.head, block_output(config, stage.index, all_view_sizes(config.data)[0])
    if len(shape) == 2 and isinstance(head, LocalPoolingConfig):
        problem = f"'lsp' pools over cells of a map, and stage {stage.index} gives {shape[0]} tokens"
        raise ConfigError(key_of(config, stage, "head", "kind"), problem, "Give expansion or gsp")
    if len(shape) == 2 and isinstance(head, ExpansionConfig) and head.filter == 3:
        problem = f"a 3x3 convolution needs a map, and stage {stage.index} gives {shape[0]} tokens"
        raise ConfigError(key_of(config, stage, "head", "filter"), problem, "Give 1")
    if len(shape) == 3 and isinstance(head, LocalPoolingConfig) and head.grid > min(shape[1:]):
        problem = (
            f"a grid of {head.grid}x{head.grid} does not fit the {shape[1]}x{shape[2]} output of stage {stage.index}"
            f"{for_smallest(config)}"
        )
        raise ConfigError(key_of(config, stage, "head", "grid"), problem, f"Give at most {min(shape[1:])}")


def _check_objective(config: Config, stage: StageConfig) -> None:
    objective, width = stage.objective, embedding_width(config, stage)
    if isinstance(objective, CustomConfig):  # the only kind that needs torch to be checked
        from pipeline.objectives import build_objective

        build_objective(objective, width, config.seed, stage.index)
    if isinstance(objective, BYOLConfig) and objective.predictor and objective.predictor[-1] != width:
        raise ConfigError(
            key_of(config, stage, "objective", "predictor"),
            f"ends with {objective.predictor[-1]} outputs, and must predict the embedding of {width}",
            f"Give [..., {width}], or a head.projector that ends with {objective.predictor[-1]}",
        )
    views = config.num_views - config.has_patch
    if isinstance(objective, LeJEPAConfig) and (objective.global_views or 0) > views:
        raise ConfigError(
            key_of(config, stage, "objective", "global_views"),
            f"got {objective.global_views}, and there are {views} views",
            f"Give at most {views}, or leave it out",
        )
