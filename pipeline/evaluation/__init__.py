"""Evaluation of a trained network: features of data sets, classifiers on them, corrupted images.

- `corruptions/`: the common corruptions of ImageNet-C, CIFAR-10-C and Tiny-ImageNet-C, computed for any image from
  a key
- `blocks.py`: linear-probe accuracy of every block, on the trunk and the expansion feature: the table at the end of a
  run
- `corrupted_sets.py`: reads the published corrupted test sets from disk: ImageNet-C and its like, and CIFAR-10-C and
  its like
- `document.py`: `evaluation.json`: the results of an evaluation as a flat list of records, with its settings and
  versions
- `feature_set.py`: the input of the measures: the features of a set of images at every place, and the labels
- `features.py`: the embeddings of images at any places of a network, in one pass through it
- `few_label.py`: few labels: the choice of labelled images, and fine-tuning of blocks and classifier on them
- `mlp.py`: a classifier with one hidden layer on a frozen feature
- `quality_views.py`: the augmented views that LiDAR measures on: q views of each of n images of the training set
- `task.py`: the labels for classifiers: only labelled images, and classes numbered without gaps
"""
