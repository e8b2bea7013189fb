"""The digest of tensors: by its formula, in whole numbers of Python, and what it must notice."""

from __future__ import annotations

import struct

import pytest
import torch
from torch import Tensor

from pipeline.stage import fold
from pipeline.stage.fold import COLUMNS, FIRST_COLUMN, FIRST_ROW, SECOND_SUM, Fold, as_text

CPU = torch.device("cpu")
ALL = 2**64


def digest(*tensors: Tensor, position: int = 0) -> str:
    return as_text(Fold(CPU).of(tensors, position).tolist())


def noise(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(count))


def splitmix(counter: int) -> int:
    z = (counter + 1) * 0x9E3779B97F4A7C15 % ALL
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % ALL
    z = (z ^ z >> 27) * 0x94D049BB133111EB % ALL
    return z ^ z >> 31


def by_hand(values: Tensor, position: int) -> str:
    held, sums = values.numpy().tobytes(), []
    held += bytes(-len(held) % 8)
    for first in (0, SECOND_SUM):
        total = 0
        for place, (word,) in enumerate(struct.iter_unpack("q", held), position):
            row, column = divmod(place, COLUMNS)
            total += word * (splitmix(FIRST_ROW + row + first) | 1) * (splitmix(FIRST_COLUMN + column + first) | 1)
        sums.append(total)
    return as_text(sums)


def test_the_weights_are_those_of_the_published_generator() -> None:
    assert [splitmix(counter) for counter in range(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@pytest.mark.parametrize("position", [0, 5, COLUMNS, 3 * COLUMNS - 1, fold.PIECE_ON_CPU - 7])
@pytest.mark.parametrize("count", [1, 17, 3 * COLUMNS + 100, 9 * COLUMNS + 2])
def test_it_is_the_sum_of_its_formula(count: int, position: int) -> None:
    values = noise(count)
    assert digest(values, position=position) == by_hand(values, position)


def test_one_sum_is_the_first_of_two() -> None:
    values = noise(3 * COLUMNS + 100)
    assert as_text(Fold(CPU, sums=1).of([values], 7).tolist()) == digest(values, position=7)[:16]


def test_the_parts_of_a_whole_sum_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(5 * COLUMNS + 3)
    whole = digest(values)
    folded = Fold(CPU)
    for cut in (2, 778, COLUMNS, 4 * COLUMNS + 2):
        assert as_text((folded.of([values[:cut]]) + folded.of([values[cut:]], cut // 2)).tolist()) == whole
        assert digest(values[:cut], values[cut:]) == whole, "as tensors one after the other"
    monkeypatch.setattr(fold, "PIECE_ON_CPU", COLUMNS)
    assert digest(values) == digest(values[:10], values[10:]) == whole, "whatever the size of the pieces"


def test_large_tensors_come_first_and_each_begins_a_row() -> None:
    first, second, small = noise(9 * COLUMNS + 2), noise(10 * COLUMNS), noise(17)
    folded = Fold(CPU)
    parts = [folded.of([first]), folded.of([second], 5 * COLUMNS), folded.of([small, small], 10 * COLUMNS)]
    assert digest(small, first, small, second) == as_text(torch.stack(parts).sum(0).tolist())
    assert digest(first, second) != digest(second, first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8])
def test_every_bit_and_every_place_count(dtype: torch.dtype) -> None:
    bits = torch.randint(0, 2**8, (40, torch.empty((), dtype=dtype).itemsize), dtype=torch.uint8)
    found = {digest(bits.view(dtype))}
    for byte in range(bits.shape[1]):
        for bit in range(8):
            bits[3, byte] ^= 1 << bit
            found.add(digest(bits.view(dtype)))
            bits[3, byte] ^= 1 << bit
    assert len(found) == 1 + 8 * bits.shape[1]
    values = bits.view(dtype).flatten().clone()
    values[[4, 5]] = values[[5, 4]]
    assert digest(values) not in found, "two that are swapped"


def test_a_number_that_is_none_counts_by_its_bits() -> None:
    quiet, other = (torch.tensor([bits], dtype=torch.int32).view(torch.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert torch.isnan(quiet).all()
    assert torch.isnan(other).all()
    assert digest(quiet) == digest(quiet.clone()) != digest(other)
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))


def test_the_order_of_indices_counts_and_not_that_of_the_memory() -> None:
    images = noise(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    assert digest(images.to(memory_format=torch.channels_last)) == digest(images)
    assert digest(images.permute(0, 2, 3, 1)) != digest(images)


def test_tensors_of_several_widths_each_count() -> None:
    tensors = [noise(10), torch.arange(4), torch.ones(3, dtype=torch.bfloat16), torch.tensor(True), torch.empty(0, 2)]
    found = {digest(*tensors)}
    for number, tensor in enumerate(tensors[:-1]):
        changed = [other.clone() for other in tensors]
        changed[number].view(-1)[-1] = 0 if tensor.view(-1)[-1] else 1
        found.add(digest(*changed))
    assert len(found) == len(tensors)
    assert digest(*tensors[:-1]) == digest(*tensors)
    assert digest(torch.complex(noise(4), noise(5)[:4])) == digest(torch.stack([noise(4), noise(5)[:4]], dim=1))


def test_a_gpu_sums_in_another_way_and_to_the_same() -> None:
    folded = Fold(CPU)
    rows = torch.randint(-(2**31), 2**31, (3, COLUMNS), generator=torch.Generator().manual_seed(0))
    sums = folded._row_sums(rows)
    folded._device = torch.device("cuda")  # what it has on a GPU works on a CPU, too
    assert folded._row_sums(rows).equal(sums)
