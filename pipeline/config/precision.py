"""`precision`: the number formats and memory layouts that a stage computes in."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import Section


class PrecisionConfig(Section):
    """fp32 is exact: the pipelined run equals the serial one to the bit. So are bf16 and fp16 on one kind of device."""

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the network's activations, under autocast; weights, objective and optimizer stay in fp32."""
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
