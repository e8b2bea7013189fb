"""How it is started: command line, torchrun entry, placement and the run directory."""

import os
import sys

# `python -m launch.train`, as torchrun starts it: what happens to lie in the working directory is not ours to import.
# While a package is imported for -m, that is all that Python has for the program's name.
if (
    sys.argv[:1] == ["-m"]
    and os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir)
    and os.path.realpath(os.path.dirname(os.path.dirname(__file__))) != os.path.realpath(os.curdir)
):
    del sys.path[0]
