"""The state of a run on disk: snapshots while it trains, weights at its end.

- `bits.py`: which versions of Onward compute the same bits: a run that goes on across a change says so. No torch here
- `committer.py`: the coordinator's side of snapshots: when they are taken, and the manifest that makes one count
- `manifest.py`: the manifest of a snapshot: which files it is made of, and their sizes and digests. No torch here
- `restore.py`: going on from a snapshot: its tensors and counters back into the stages
- `weights.py`: the `final/` folder: every stage's tensors, and the backbone under torchvision's names
- `writer.py`: snapshots: the state of every stage after the same step, and the manifest that makes it count
"""
