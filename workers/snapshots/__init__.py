"""The state of a run on disk: snapshots (checkpoints) during training, weights at the end.

- `bits.py`: which versions of Onward compute the same bits: a run that continues across a change says so
- `committer.py`: the coordinator's side of snapshots: decides when one is taken, and writes its manifest when all
  parts are written
- `host_copies.py`: copies of a stage's state in host memory, which a GPU makes while the host goes on
- `initial.py`: loads the weights that a run begins with (`init_from`)
- `manifest.py`: the format of a snapshot's manifest (files, sizes, digests), read and checked here and written by
  `committer.py`. Does not import torch
- `parts.py`: where a process keeps its parts of snapshots and of `final/`: in the run directory
- `remote_parts.py`: or with the coordinator, where the run directory is not shared
- `restore.py`: restores stages from a snapshot: tensors and counters
- `weights.py`: writes the `final/` folder: the tensors of every stage, and the backbone under torchvision's names
- `writer.py`: writes the parts of snapshots: the state of every stage after the same step
"""
