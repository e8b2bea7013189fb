"""Tries one step of a stage twice before it is trained: exactness rests on library kernels, and some do not repeat.

- `check.py`: when a step is tried, and of which batches.
- `child.py`: work in a process of its own, which may die.
- `memory.py`: junk in freed memory, so that what a kernel reads unwritten shows.
- `refusal.py`: what the user is told whose step does not repeat, and which setting avoids it.
- `remembered.py`: what was tried before on this machine.
- `search.py`: in which operation of which module two computations of a step part.
- `step.py`: the step, on random input of the run's own shapes, as checksums of all that it computes.
- `twice.py`: the step twice from one state.
"""
