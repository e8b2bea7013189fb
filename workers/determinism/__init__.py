"""Whether a step is deterministic: some library kernels are not, so it is tried twice before training, and some
operations have no deterministic kernel at all.
- `check.py`: checks that the steps of a process are deterministic: for which stages, and on which batch sizes
- `child.py`: runs a function in a process of its own, which may crash and whose memory is freed at its end
- `memory.py`: fills freed memory with a pattern, so that a kernel that reads uninitialised memory computes something
  else
- `operations.py`: which operations repeat on CUDA: an entry for every operator that a run may call, with its source
- `refusal.py`: the error message for a step that is not deterministic: the operation, and a setting that avoids it
- `search.py`: finds the first operation in which two computations of a step differ, or in which the process dies
- `step.py`: computes one step of a stage on random input with the shapes of the run, and checksums of all results
- `trial.py`: runs a trial in a process of its own: forked for a CPU, in a new interpreter for a GPU
- `trial_main.py`: main program of a trial in a new interpreter
- `twice.py`: computes one step twice from the same state, with freed memory overwritten in between
- `verified.py`: remembers which steps were found deterministic on this machine with these versions, to check each
  only once
"""
