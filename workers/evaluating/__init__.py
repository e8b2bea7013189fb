"""What `onward evaluate` does: features of a trained network, and everything that is measured on them.

- `augmented.py`: augmented training images for the papers' probes: a random crop, flipped half of the time, anew
  every epoch
- `cache.py`: features kept on disk: one folder for everything that they depend on, one safetensors file a place
- `checkpoints.py`: the network that is evaluated: a run's trained weights, or those of one of its snapshots
- `context.py`: what a measure is given: the network, the images, their features, and somebody to tell how far it is
- `extraction.py`: many images through a network: decoded in threads, and on a CPU computed in them too, a whole batch
  each
- `fine_tuning.py`: accuracy after training blocks and classifier on few labelled images: the images for it, and the
  network to it
- `finite.py`: features that are not finite: found before anything is fitted on them, kept or compared
- `labelled.py`: the images that classifiers are fitted and tested on: all with labels, but those that cannot be
  decoded
- `probe_table.py`: the probe table of `report.json`: the trained network beside the same network untrained
- `probes.py`: every classifier that is asked for, on every place, as records in an order that does not change
- `protocols.py`: how each classifier is fitted, with every number of it, for `evaluation.json`: names alone would not
  reproduce it
- `quality.py`: what every block is worth without labels: augmented views of some images through the network, and the
  measures
- `ranks.py`: several processes that torchrun started share the work of making features; no tensors travel between
  them
- `robustness.py`: errors of linear classifiers, fitted on clean images, on corrupted ones: of every block, in one
  pass a corruption
- `rows.py`: where features go while they are computed: batch by batch into files, or into memory
- `run.py`: one evaluation, from the weights to the document: every measure that the configuration asks for, in order
- `source.py`: features of whole data sets: from the disk where an earlier evaluation left them, else computed in one
  pass
- `transfer.py`: the same network on other data sets: what `evaluation.transfer` names, one context for each
"""
