"""What the time of a stage is spent on. Does not import torch."""

from __future__ import annotations

from typing import Literal

Share = Literal["busy", "wait_input", "wait_output", "copying"]
"""The four add up to all of it."""
