"""The file in which torchrun looks for the reason of a rank's failure, to show it in its summary."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress

VARIABLE = "TORCHELASTIC_ERROR_FILE"


def write_error_file(sentence: str) -> None:
    """Write why this rank ends; nothing happens without torchrun, or if there is a reason already."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    details = {"py_callstack": sentence, "timestamp": str(int(time.time()))}  # torchrun prints the call stack
    with suppress(OSError), open(path, "x", encoding="utf-8") as file:
        json.dump({"message": {"message": sentence, "extraInfo": details}}, file)
