"""`precision`: number formats and memory layouts of a stage."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import Section


class PrecisionConfig(Section):
    """A pipelined run is bit-identical to the serial one in fp32, and in bf16 and fp16 on one kind of device."""

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the network's activations, under autocast; weights, objective and optimizer stay in fp32."""
    tf32: bool = False
    """Let matrix products and convolutions on a GPU round their inputs to TF32; for the whole run."""
    channels_last: bool = False
    """Keep feature maps as [B, H, W, C] in memory."""
    compile: bool = False
    """Compile block and head with torch.compile."""
    shared_scaler: Literal["none", "reference"] = "none"
    """fp16 only. `none`: each stage scales its own loss, and an overflow skips the step of that block alone.
    `reference`: one scaler for all, as released: an overflow in any block skips the step of every block. That
    ties the blocks together, so only runtime=serial can do it."""
