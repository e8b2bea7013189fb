"""The state of a run on disk: snapshots (checkpoints) during training, weights at the end.
- `committer.py`: the coordinator's side of snapshots: decides when one is taken, and completes it by writing its
  manifest
- `manifest.py`: the manifest of a snapshot: its files, with sizes and digests. Does not import torch
- `restore.py`: restores stages from a snapshot: tensors and counters
- `weights.py`: writes the `final/` folder: the tensors of every stage, and the backbone under torchvision's names
- `writer.py`: writes the parts of snapshots: the state of every stage after the same step
"""
