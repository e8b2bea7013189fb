"""How a run is started: the command line, what is checked and prepared before, and the processes of a run.

- `commands/`: the commands of `onward` other than `train` and `resume`, which are in `cli.py`: one file per command,
  and what several of them read
- `doctor/`: what `onward doctor` looks at, line by line; made of what a run makes sure of before it starts
- `exporting/`: a trained backbone as a folder that another library loads, with a model card
- `hosts/`: `onward train --hosts`: the processes of a run on several hosts, for those who have nothing but ssh
- `pages/`: the page that `onward report` writes: what is read of a run, its figures, its tables, and how they look
- `partition/`: `onward plan`: where to cut a network, and how to use N devices
- `plan/`: what a run will need, computed before it starts: the memory of every process
- `prepare/`: from a configuration to a run that may start: everything that is checked and written before its first
  process
- `processes/`: the processes of a run: who starts them, what each runs first, and how they end
- `results/`: results for people and for other programs: tables, files and figures of evaluations and comparisons
- `verifying/`: what shows whether a run was computed as it says: parts of it computed again, and compared
- `cli.py`: the command line: reads what the user typed, and turns every failure into one line and an exit code
- `errors.py`: how a command ends: its exit code, and any error as one line for the user: what, where, and what to do
- `evaluate.py`: evaluates in several processes: `torchrun --nproc-per-node=PROCESSES -m launch.evaluate RUN`
- `failure.py`: the record of a failed run: `failure.json`, and the exit code
- `train.py`: the module that torchrun starts on every rank (`torchrun ... -m launch.train CONFIG`); it calls
  `processes/torchrun.py`
"""

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
    from workers.run.environment import clean_environment

    clean_environment()  # now, for the module that is to be run may import torch
