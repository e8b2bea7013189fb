"""How it is started: command line, torchrun entry, placement and the run directory."""

import os
import sys

# `python -m launch.train`, as torchrun starts it, and nothing but it: while a package is imported for -m, that is all
# that Python has for the program's name.
if sys.argv[:1] == ["-m"]:
    # What happens to lie in the working directory is not ours to import.
    if os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir) and os.path.realpath(
        os.path.dirname(os.path.dirname(__file__))
    ) != os.path.realpath(os.curdir):
        del sys.path[0]
    from workers.run.environment import leave_surroundings

    leave_surroundings()  # now, for the module that is to be run may import torch
