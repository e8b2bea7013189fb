"""Whether the run in this container answers: exit code 0 if its page of metrics can be read, else 1.

The port is that of `metrics.port`, which the variable ONWARD_PORT repeats.
"""

from __future__ import annotations

import os
import sys
from urllib.request import urlopen

address = f"http://127.0.0.1:{os.environ.get('ONWARD_PORT', '9464')}/metrics"
try:
    with urlopen(address, timeout=5) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except OSError as error:
    print(f"{address} does not answer: {error}")
    sys.exit(1)
