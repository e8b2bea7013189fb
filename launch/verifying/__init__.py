"""What shows whether a run was computed as it says: parts of it computed again, and compared.

- `bisection.py`: where two runs part: the first place at which what they have recorded differs
- `circumstances.py`: what may give other bits by right: versions, processors, devices, keys of two sides
- `intervals.py`: which steps of a run can be computed again: from a snapshot to where something is there to compare
- `recorded.py`: the digests that a run has recorded, and the first in which two sides differ
- `recomputation.py`: computes steps of a run again, in a folder that is thrown away
- `tensors.py`: the tensors of two sides, compared bit by bit: which differ, and by how much
- `verification.py`: what came out of computing a run again, and its text
"""
