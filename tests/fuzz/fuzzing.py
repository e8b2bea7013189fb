"""How hard the fuzz tests try: 200 examples each in the normal suite, 10,000 in `make fuzz`, the same ones every time.

`FUZZ_EXAMPLES` says how many, `FUZZ_SEED` picks others.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
SEED = os.environ.get("FUZZ_SEED")
MAX_SECONDS = 60.0
"""Of a processor's time for one example, which takes milliseconds: on no machine does anything but a hang reach it."""

_SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=SEED is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    """Run a property as often as was asked for."""
    test = _SETTINGS(test)
    return test if SEED is None else seed(int(SEED))(test)


class quick:
    """What stands in the block must not compute for ever; one that waits for ever is ended by the limit of the test."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGVTALRM, self._hangs)
        signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, self._before)

    def _hangs(self, number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still computing after {MAX_SECONDS:g} s of a processor's time")


def attempt(call: Callable[[], Any], *errors: type[Exception]) -> tuple[Any, str | None]:
    """What `call` returns, soon, or the text of the error it raises; of no other error than these."""
    with quick():
        try:
            return call(), None
        except errors as error:
            return None, str(error)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400])
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
"""Any value that JSON can have, and those that Python's JSON has on top."""

EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["cut", "insert", "replace", "double"]), st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    """`data` after a few small accidents."""
    for where, what, piece in edits:
        at = int(where * len(data))
        end = at + max(len(piece), 1)
        if what == "cut":
            data = data[:at] + data[end:]
        elif what == "insert":
            data = data[:at] + piece + data[at:]
        elif what == "replace":
            data = data[:at] + piece + data[end:]
        else:
            data = data[:end] + data[at:]
    return data


@st.composite
def with_one_changed(draw: st.DrawFn, value: Any, other: st.SearchStrategy[Any]) -> Any:
    """`value` with the value at one place in it replaced, left out, or doubled under another key."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        changed = {name: item for name, item in value.items() if name != key}
        if draw(st.integers(0, 7)):
            changed[key] = draw(with_one_changed(value[key], other))
        elif draw(st.booleans()):
            changed[draw(st.text(max_size=8))] = value[key]
        return changed
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(with_one_changed(value[at], other)), *value[at + 1 :]]
    return draw(other)
