"""Checks before training that a step is deterministic: computes it twice, because some library kernels are not.
- `check.py`: checks that the steps of a process are deterministic: for which stages, and on which batch sizes
- `child.py`: runs a function in a forked process, which may crash and whose memory is freed at its end
- `memory.py`: fills freed memory with a pattern, so that a kernel that reads uninitialised memory computes something
  else
- `refusal.py`: the error message for a step that is not deterministic: the operation, and a setting that avoids it
- `search.py`: finds the first operation in which two computations of a step differ, or in which the process dies
- `step.py`: computes one step of a stage on random input with the shapes of the run, and checksums of all results
- `twice.py`: computes one step twice from the same state, with freed memory overwritten in between
- `verified.py`: remembers which steps were found deterministic on this machine with these versions, to check each
  only once
"""
