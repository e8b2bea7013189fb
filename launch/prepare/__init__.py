"""What is found out and made ready before a process of a run starts.

- `data_index.py`: whether a run that goes on is given the data it began with: an index of them lies in its folder
- `lock_holders.py`: which processes hold a lock: as the kernel lists them, and whose open files they are
- `placement.py`: which device runs which stage: a pure function of the configuration and the number of GPUs
- `ports.py`: whether a port can be served, asked before anything starts rather than found out after
- `preflight.py`: everything that can be found wrong before a process starts, in seconds and without torch
- `ranks.py`: whether the processes that a launcher started are those of the run, asked before anything is written
- `recompute.py`: what each stage has to compute again so that it fits its device: the cheapest that does
- `resume.py`: going on with a run that was stopped: whether the folder holds the same run, and from which snapshot
- `run_dir.py`: the run directory: everything one run writes, and the only thing that is left of it
- `run_lock.py`: who may write to a run directory: whoever holds its lock, from the first look at it to the end of the
  last process
- `scan.py`: `onward check CONFIG --headers` and `--all`: look at every image of the training and of the test set, and
  list what is wrong, so that a long run meets no broken file that could have been known
"""
