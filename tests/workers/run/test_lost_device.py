"""A GPU that is lost to a process: one sentence with the device and what to do, whoever raises it."""

from __future__ import annotations

import pytest
import torch

from workers.control.failures import FailureReport, failure_report, root_cause
from workers.run.lost_device import CRASHED, FORBIDDEN, GONE, device_lost, is_gone

ADVICE = (
    "\nSearch for `cudaErrorAssert' in the documentation for more information.\nCUDA kernel errors might be "
    "asynchronously reported at some other API call, so the stacktrace below might be incorrect.\n"
)


def raised(words: str) -> RuntimeError:
    """As PyTorch raises what the runtime says."""
    try:
        raise torch.AcceleratorError(f"CUDA error: {words}{ADVICE}")
    except torch.AcceleratorError as error:
        return error


@pytest.mark.parametrize("words", [*FORBIDDEN, *CRASHED, *GONE])
def test_each_way_to_lose_a_device_is_one_sentence_that_names_it(words: str) -> None:
    failure = failure_report("stage 2", 7, raised(words), "cuda:1")
    assert str(failure.error()).startswith(f"stage 2 failed at step 7: cuda:1 was lost (CUDA error: {words}): ")
    assert "\n" not in failure.cause
    assert "stacktrace" not in failure.cause
    assert "'dmesg | grep -i xid'" in failure.cause or "device=cpu" in failure.cause


@pytest.mark.parametrize(("ways", "hopeless"), [(FORBIDDEN, False), (CRASHED, False), (GONE, True)])
def test_only_a_device_that_no_process_can_use_ends_the_run_at_once(ways: tuple[str, ...], hopeless: bool) -> None:
    for words in ways:
        assert is_gone(raised(words)) == hopeless
        failure = failure_report("stage 2", 7, raised(words), "cuda:1")
        assert (failure.hopeless, failure.kind) == (hopeless, "device_gone" if hopeless else "raised")


def test_libraries_raise_it_too() -> None:
    error = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED: Unspecified launch failure")
    assert (device_lost(error, "cuda:0") or "").startswith(
        "cuda:0 was lost (cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("CUDA error: device-side assert triggered"),
        RuntimeError("the file says 'unspecified launch failure'"),
        torch.AcceleratorError("CUDA error: invalid argument"),
        RuntimeError(""),
    ],
)
def test_nothing_else_is_taken_for_it(error: Exception) -> None:
    assert device_lost(error, "cuda:0") is None
    assert not is_gone(error)


def test_what_lost_its_device_is_the_cause_of_all_that_follows() -> None:
    gone = failure_report("stage 2", 7, raised("uncorrectable ECC error encountered"), "cuda:1")
    others = [FailureReport("stage 3", 7, "raised", "ValueError"), FailureReport("stage 1", 8, "lost_neighbour", "")]
    assert root_cause([*others, gone]) is gone
    assert FailureReport.from_message(gone.to_message()) == gone
