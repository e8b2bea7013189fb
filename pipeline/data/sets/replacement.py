"""Chooses the image that replaces one that cannot be decoded (`data.on_error: skip`).

The choice is a pure function, so every worker makes the same one, also after a restart, and batches do not change.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.data.augment.keyed_draws import Purpose, keyed_bits

TRIES = 16
"""Candidates, tried in turn until one can be decoded. If a tenth of a data set is broken, all fail once in 10^16."""


def replacements(seed: int, epoch: int, index: int, length: int) -> Iterator[int]:
    """The images to try in place of image `index`, in order: up to 16 different ones, none of them `index`.

    They are drawn uniformly from the key (seed, epoch, index): the replacement differs from epoch to epoch, and no
    image is favoured because it lies beside a broken one.

    Args:
        seed: of the run.
        epoch: counted from 0.
        index: of the broken image.
        length: images in the data set; a single image has no replacement.
    """
    tried = {index}
    for bits in keyed_bits(seed, Purpose.REPLACEMENT, (0, index, epoch), TRIES).tolist():
        other = bits % length  # 2^64 is so far above any length that no number is favoured
        if other not in tried:
            tried.add(other)
            yield other
