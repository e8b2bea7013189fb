"""Tries one step of a stage twice before it is trained: exactness rests on library kernels, and some do not repeat.

- `check.py`: whether the steps of a process repeat themselves: when that is tried, and of which batches
- `child.py`: work in a process of its own, which may die, and which holds no memory once it has ended
- `memory.py`: junk in freed memory: whoever reads memory that nobody wrote reads it, and something else than the time
  before
- `refusal.py`: what the user is told whose step does not repeat itself: in which operation, and which setting avoids
  it
- `remembered.py`: what was tried before on this machine, with these versions: what has repeated itself need not be
  tried again
- `search.py`: in which operation of which module two computations of one step part, or the process dies
- `step.py`: one step of a stage on random input of the run's own shapes, as checksums of all that it computes
- `twice.py`: one step computed twice from one state, with junk freed in between
"""
