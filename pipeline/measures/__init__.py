"""Measures of features, as functions of tensors: probes, neighbours, and quality without labels.

- `accuracy.py`: top-1 and top-5 accuracy, the same for every classifier that is measured
- `feature_bank.py`: the features of the last images that a block has seen, for measures that need more of them than
  one batch has
- `knn.py`: weighted nearest-neighbour accuracy: what a frozen feature knows without anything being fitted
- `linear.py`: linear probe: how much of the labels a linear classifier reads off a frozen feature
- `online.py`: what is measured of a block while it is trained (`evaluation.online`), and never changes what it learns
- `online_probe.py`: a linear classifier that is trained along with a block, on features that carry no gradient
- `probes.py`: linear classifiers on frozen features, fitted by the papers' protocols
- `protocols.py`: the papers' protocols for a linear classifier on frozen features: optimizer, epochs, batch and
  learning rate
- `quality.py`: what an embedding is worth, told without labels: LiDAR, RankMe, alpha-ReQ and the collapse level
- `rank_correlation.py`: how well a measure orders networks: rank correlations with their accuracy, as the LiDAR paper
  reports them
"""
