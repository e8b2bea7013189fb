"""What units and ends are counted to do is, together, what the stages of a run do, wherever it is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from launch.partition.counted_ends import EndCalls
from launch.partition.counted_units import UnitCalls
from launch.partition.counting import Counted, count, state_factor
from launch.partition.finest import cut_everywhere
from launch.partition.kernel_calls import flops_of
from launch.plan.process_memory import process_memory
from pipeline.config import Config
from tests.launch.partition.counting_cases import ADAM, CASES, OWN
from tests.launch.partition.in_child import in_child
from tests.marks import slow
from tests.pipeline.small import STEPS_PER_EPOCH, small_config
from workers.stage.plain_steps import PlainSteps
from workers.topology.rendezvous import link_spec

pytestmark = pytest.mark.processes


def parts_of(config: Config, counted: Counted) -> list[tuple[list[UnitCalls], EndCalls]]:
    """Of every stage, its units and its end, of a step of the whole batch."""
    names = counted.names
    ends = [names.index(block[-1]) for block in _blocks(config, names)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [
        ([counted.units[stage][index][0] for index in range(start, end + 1)], counted.ends[stage, end][0])
        for stage, (start, end) in enumerate(zip(starts, ends, strict=True), 1)
    ]


def _blocks(config: Config, names: Sequence[str]) -> list[list[str]]:
    """The units of the stages; of a module, `blocks` has only the last of each."""
    return [[name for name in names if name in block] for block in config.model.blocks()]


def both_counts(case: str) -> list[list[int]]:
    """Of every stage: from its parts, and of whole steps."""
    config = small_config(**CASES[case])
    parts = parts_of(config, count(config, range(1, config.num_stages + 1), cuda=False))
    one_by_one = []
    for number, (units, end) in enumerate(parts):
        through = config.mode == "end_to_end" and number > 0
        backward = [unit.backward if index or through else unit.first_backward for index, unit in enumerate(units)]
        calls = [*(unit.forward for unit in units), *backward, *(unit.target for unit in units)]
        one_by_one.append(sum(map(flops_of, [*calls, end.forward, end.backward, end.loss])))
    steps = PlainSteps(config, STEPS_PER_EPOCH)
    if config.mode == "end_to_end":
        whole = steps.of_all(link_spec(config, 1).shape, 0)
        return [[sum(one_by_one)], [sum(whole)]]
    specs = {stage: link_spec(config, stage) for stage in range(1, config.num_stages + 1)}
    learns = {stage: not config.is_frozen(stage) for stage in specs}
    whole = [steps.of_stage(k, spec.shape, spec.dtype, 0, learns=learns[k]) for k, spec in specs.items()]
    return [one_by_one, whole]


QUICK = {"plain", "bf16", "transformer", "target network", "views of several sizes", "stages that differ"}


@pytest.mark.parametrize("case", [case if case in QUICK else slow(case) for case in CASES])
def test_the_operations_of_the_parts_are_those_of_the_stages(case: str) -> None:
    one_by_one, whole = in_child(both_counts, case)
    assert one_by_one == whole
    assert min(whole) > 0


def both_sizes(case: str, cuda: bool) -> list[list[list[int]]]:
    """Of every stage: bytes of gradients, of the optimizer's state, and what is kept."""
    config = small_config(**CASES[case])
    found, said = [], []
    for stage, (units, end) in enumerate(
        parts_of(config, count(config, range(1, config.num_stages + 1), cuda=cuda)), 1
    ):
        parts = [*units, end]
        found.append([sum(getattr(part, name) for part in parts) for name in ("parameters", "state", "kept")])
        account = process_memory(config, [stage], cuda=cuda).stages[0]
        said.append([account.gradients, account.optimizer, account.kept])
    return [found, said]


@pytest.mark.parametrize(
    ("case", "cuda"),
    [("plain", False), ("bf16", False), ("transformer", True), ("target network", True), ("slices", False)],
)
def test_the_bytes_of_the_parts_are_those_of_the_account_of_memory(case: str, cuda: bool) -> None:
    found, said = in_child(both_sizes, case, cuda)
    scalars = 200  # such as the number of an optimizer's step
    for of_parts, of_stage in zip(found, said, strict=True):
        assert of_parts[0] == of_stage[0]
        assert abs(of_parts[1] - of_stage[1]) <= scalars
        assert abs(of_parts[2] - of_stage[2]) <= scalars


def outputs_of(case: str) -> list[list[int]]:
    config = small_config(**CASES[case])
    parts = parts_of(config, count(config, [1, 2, 3, 4][: config.num_stages], cuda=False))
    sent = [units[-1].output for units, _ in parts]
    return [sent, [link_spec(config, stage + 1).nbytes for stage in range(1, config.num_stages)] + [0]]


@pytest.mark.parametrize("case", ["plain", "bf16", "transformer", "views of several sizes", "stages that differ"])
def test_the_output_of_a_unit_is_what_the_link_carries(case: str) -> None:
    counted, carried = in_child(outputs_of, case)
    assert counted == carried


def same_for_other_cuts(sections: dict[str, Any]) -> list[bool]:
    cuts = [["layer1", "layer2", "layer3"], ["stem", "layer1.0", "layer4.0"], []]
    of_cuts = [count(small_config(**sections, model={"cuts": each}), range(1, 4), cuda=True) for each in cuts]
    first = of_cuts[0]
    return [other.units == first.units and other.ends == first.ends for other in of_cuts[1:]]


def test_what_is_counted_does_not_depend_on_the_cuts_of_the_run() -> None:
    assert in_child(same_for_other_cuts, {}) == [True, True]


def places_of_ends() -> list[list[int]]:
    config = small_config()
    return sorted(map(list, count(config, [1, 3, 9], cuda=False).ends))


def test_a_stage_ends_no_earlier_than_the_stages_before_it_allow() -> None:
    units = len(small_config().model.units())
    assert in_child(places_of_ends) == [[stage, last] for stage in (1, 3, 9) for last in range(stage - 1, units)]


def differences() -> dict[str, bool]:
    counted = count(small_config(**CASES["stages that differ"]), [1, 2, 3, 4, 5], cuda=False)
    units, ends = counted.units, counted.ends
    return {
        "head of stage 1": ends[1, 4][0].parameters != ends[5, 4][0].parameters,
        "units of stage 1": units[1] == units[5],
        "precision of stage 2": units[2][3][0].forward != units[5][3][0].forward,
        "state of stage 2": units[2][3][0].state > 1.9 * units[5][3][0].state,
        "target of stage 3": flops_of(units[3][3][0].target) > 0 == flops_of(units[5][3][0].target),
        "frozen stage 4": units[4][3][0].backward == Counter() and ends[4, 4][0] == EndCalls(),
    }


def test_a_stage_has_its_own_settings_wherever_it_ends() -> None:
    found = in_child(differences)
    assert all(found.values()), found


def counted_once() -> bool:
    model = {"backbone": "resnet50", "width": 8, "cuts": []}
    units = count(small_config(model=model), [1], cuda=False).units[1]
    names = small_config(model=model).model.units()
    return units[names.index("layer3.1")] is units[names.index("layer3.5")]


def test_units_that_are_alike_are_counted_once() -> None:
    assert in_child(counted_once)


def test_a_network_of_the_users_own_is_cut_wherever_one_tensor_passes() -> None:
    own = small_config(model={**OWN, "cuts": []})
    assert cut_everywhere(own).model.cuts == ("first",)


@pytest.mark.parametrize(
    ("optimizer", "factor"), [({}, 1.0), (ADAM, 2.0), ({"kind": "sgd", "momentum": 0.0, "warmup_epochs": 1}, 0.0)]
)
def test_the_state_of_an_optimizer_by_its_kind(optimizer: dict[str, Any], factor: float) -> None:
    config = small_config(optimizer=optimizer, stages={2: {"optimizer": ADAM}})
    assert state_factor(config, 1) == factor
    assert state_factor(config, 2) == 2.0
