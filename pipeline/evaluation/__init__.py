"""What a trained network is worth: features of data sets, classifiers on them, corrupted images.

- `corruptions/`: the common corruptions of ImageNet-C, CIFAR-10-C and Tiny-ImageNet-C, computed for any image by a
  key
- `blocks.py`: linear-probe accuracy of every block, on the trunk and on the expansion feature: the table a run ends
  with
- `corrupted_sets.py`: reads the published corrupted test sets from disk: ImageNet-C and its like, and CIFAR-10-C and
  its like
- `document.py`: `evaluation.json`: what was measured of a run, as a flat list of records, and what one must know to
  trust it
- `feature_set.py`: what the measures read: the features of a set of images at every place, and the labels
- `features.py`: the embeddings of images at any places of a network, in one pass through it
- `few_label.py`: few labels: which images keep theirs, and training the blocks below a classifier with them
- `mlp.py`: a classifier with one hidden layer: what a frozen feature knows, though not linearly
- `quality_views.py`: the augmented views that LiDAR measures on: q views of each of n images of the training set
- `task.py`: labels as classifiers want them: images that have one, and classes numbered without gaps
"""
