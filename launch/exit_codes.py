"""What a process of Onward ends with; scripts rely on these."""

from __future__ import annotations

EXIT_FAILED = 1
"""Training failed; the reason is one line on stderr."""
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
