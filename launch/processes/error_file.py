"""The file in which torchrun looks for the reason of a rank's failure, to show it in its summary."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from pipeline.ordinary_files import open_to_write

VARIABLE = "TORCHELASTIC_ERROR_FILE"


def write_error_file(sentence: str) -> None:
    """Write why this rank ends; nothing happens without torchrun, or if there is a reason already."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    details = {"py_callstack": sentence, "timestamp": str(int(time.time()))}  # torchrun prints the call stack
    with suppress(OSError), open_to_write(Path(path), new=True) as file:
        file.write(json.dumps({"message": {"message": sentence, "extraInfo": details}}).encode())
