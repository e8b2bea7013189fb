"""The commands of `onward` beside `train`: one file a command, and what several of them read.

- `bench.py`: `onward bench method`: the comparison that blockwise training exists for, on one budget and several
  seeds
- `candidates.py`: what `onward select` chooses from: the evaluations of runs, and of snapshots of runs
- `compare.py`: `onward compare RUN...`: evaluations side by side, runs that differ only in their seed taken together
- `data.py`: `onward data pack` and `onward data verify`, as the command line takes them
- `evaluate.py`: `onward evaluate RUN`: measure every block of a run, and write `evaluation.json`, tables and figures
- `evaluated.py`: what `onward evaluate` left in run directories, as commands are given it: `RUN`, or `RUN@STEPS` for
  a snapshot
- `export.py`: `onward export`: the trained backbone as one file that needs neither the run nor Onward
- `pack.py`: `onward data pack` and `onward data verify`: a copy of a data set that is quicker to read, and whether it
  is whole
- `report.py`: `onward report`: one page about a run that needs nothing else, and the same figures for a paper
- `select.py`: `onward select RUN...`: runs ordered by a measure that needs no labels, and how well such measures tell
  accuracy
"""
