"""A digest of tensors that costs little: their bits as integers of 64 bits, multiplied by weights of their positions
and summed.

Two sums modulo 2^64, each over all words of eight bytes: the word at position p, as an integer, times a weight of p
that is odd. An odd number has an inverse modulo 2^64, so one word that changes always changes both sums; that many
changes cancel out in both is as likely as guessing some 64 bits or more. Integers are added in any order with the
same result, and the sum of a whole is the sum of its parts, each with its position in the whole: so it is the same on
every device, and replicas that have a part each need send only their sums.

The weight of position p is the product of one for its row, p div 4096, and one for its column, p mod 4096; both are
`splitmix64` (Steele, Lea and Flood 2014) of a counter, made on the device that needs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

WORD = 8
"""Bytes of what is summed."""
COLUMNS = 4096
LARGE = 4 * COLUMNS
"""Words of a tensor that is worth operations of its own; smaller ones are put together first."""
PIECE_ON_CPU, PIECE_ON_GPU = 1 << 18, 1 << 20
"""Words at once: in a cache of the processor; enough for all of a GPU."""
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of an element."""
FIRST_COLUMN, FIRST_ROW, SECOND_SUM = 0, 1 << 40, 1 << 41
"""Counters of the weights, which do not overlap."""


class Fold:
    """Folds tensors on one device.

    Args:
        device: that they are on.
        sums: 2, or 1 where half of the digits are enough, in half of the time: the first.
    """

    def __init__(self, device: torch.device, sums: Literal[1, 2] = 2) -> None:
        self._device, self._sums = device, sums
        self._piece = PIECE_ON_CPU if device.type == "cpu" else PIECE_ON_GPU
        self._columns = self._weights(FIRST_COLUMN, COLUMNS).t().contiguous()
        self._rows = self._weights(FIRST_ROW, 1)

    @torch.no_grad()
    def of(self, tensors: Sequence[Tensor], position: int = 0) -> Tensor:
        """The sums, int64 `[sums]`; the host waits for nothing.

        Args:
            tensors: in the order of their indices, whatever their strides. Zeros fill the last word of each. The whole
                words of those of several rows come first, each from the beginning of a row; all other words follow.
            position: of the first word.
        """
        held = [words for tensor in tensors for words in words_of(tensor)]
        large = [words for words in held if len(words) >= LARGE]
        small = [words for words in held if len(words) < LARGE]
        total = torch.zeros(self._sums, dtype=torch.int64, device=self._device)
        for words in [*large, torch.cat(small)] if len(small) > 1 else large + small:
            for piece in torch.split(words, self._piece):
                total += self._sum(piece, position)
                position += len(piece)
            position += -position % COLUMNS
        return total

    def _sum(self, words: Tensor, position: int) -> Tensor:
        """Of one piece: the rest of the row that it begins in, whole rows, and the beginning of the last row."""
        row, column = divmod(position, COLUMNS)
        if (last := (position + len(words)) // COLUMNS + 1) > len(self._rows):
            self._rows = self._weights(FIRST_ROW, 2 * last)
        rest = min(-position % COLUMNS, len(words))
        count = (len(words) - rest) // COLUMNS
        sums = []
        if rest:
            sums.append((words[:rest] * self._columns[:, column : column + rest]).sum(-1) * self._rows[row])
            row += 1
        if count:
            whole = words[rest : rest + count * COLUMNS].view(count, COLUMNS)
            sums.append((self._row_sums(whole) * self._rows[row : row + count]).sum(0))
        if len(end := words[rest + count * COLUMNS :]):
            sums.append((end * self._columns[:, : len(end)]).sum(-1) * self._rows[row + count])
        return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)

    def _row_sums(self, rows: Tensor) -> Tensor:
        """Each row `[R, 4096]` times the weights of its columns, `[R, sums]`."""
        if self._device.type == "cpu":
            return torch.stack([torch.mv(rows, weights) for weights in self._columns], dim=1)
        return (rows.unsqueeze(1) * self._columns).sum(-1)  # CUDA multiplies no matrix of integers

    def _weights(self, first: int, count: int) -> Tensor:
        """Odd numbers, `[count, sums]`."""
        counters = torch.arange(first, first + count, device=self._device)
        return torch.stack([_mixed(counters + SECOND_SUM * number) for number in range(self._sums)], dim=1) | 1


def as_text(sums: Sequence[int]) -> str:
    """Sums that were read from the device, as 16 hexadecimal digits each."""
    return "".join(f"{number % 2**64:016x}" for number in sums)


def words_of(tensor: Tensor) -> Iterator[Tensor]:
    """The bits of a tensor, in the order of its indices, as int64: its whole words, and one with what is left."""
    held = integers_of(tensor).view(torch.uint8)
    whole = len(held) // WORD * WORD
    if whole:
        aligned = held.storage_offset() % WORD == 0
        yield (held[:whole] if aligned else held[:whole].clone()).view(torch.int64)
    if whole < len(held):
        yield pad(held[whole:], (0, whole + WORD - len(held))).view(torch.int64)


def integers_of(tensor: Tensor) -> Tensor:
    """The bits of a tensor, in the order of its indices."""
    flat = tensor.detach().contiguous().view(-1)
    flat = torch.view_as_real(flat).view(-1) if flat.is_complex() else flat
    return flat.view(INTEGERS[flat.element_size()])


def _mixed(counters: Tensor) -> Tensor:
    """`splitmix64`, whose arithmetic wraps as that of int64 does."""
    z = (counters + 1) * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
