"""What `onward evaluate` does: features of a trained network, and every measure of them.

- `augmented_batches.py`: augmented training images for the papers' probes: a random crop, flipped half of the time, new
  in every epoch
- `checkpoints.py`: the network that is evaluated: a run's trained weights, or those of one of its snapshots
- `context.py`: what a measure is given: the network, the images, their features, and a way to report progress
- `evaluation.py`: one evaluation, from the weights to the document: every measure that the configuration asks for, in
  order
- `extraction.py`: many images through a network: decoded in threads and, on a CPU, also computed in threads, one whole
  batch each
- `feature_cache.py`: features kept on disk: one folder for everything that they depend on, one safetensors file per
  place
- `feature_rows.py`: where features go while they are computed: batch by batch into files, or into memory
- `feature_source.py`: features of whole data sets: kept by an earlier evaluation, or computed in one pass
- `fine_tuning.py`: accuracy after training blocks and classifier on few labelled images
- `finite_features.py`: finds features that are not finite before anything is fitted on them, kept or compared
- `labelled_images.py`: the images that classifiers are fitted and tested on: all that have a label and can be decoded
- `probe_table.py`: the probe table of `report.json`: the trained network beside the same network untrained
- `probes.py`: every classifier that the configuration asks for, at every place, as records in a fixed order
- `progress.py`: how far an evaluation is: one line that is redrawn on a terminal, a plain line now and then in a file
- `protocols.py`: how each classifier is fitted, with every number of it, for `evaluation.json`
- `quality.py`: label-free quality of every block: augmented views of some images through the network, and the measures
- `ranks.py`: several processes that torchrun started share the work of making features; no tensors are sent between
  them
- `robustness.py`: errors of linear classifiers, fitted on clean images, on corrupted ones: of every block, in one pass
  per corruption
- `transfer.py`: the same network on other data sets: one context for each set that `evaluation.transfer` names
"""
