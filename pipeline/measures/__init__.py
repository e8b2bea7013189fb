"""Measures of features, as functions of tensors: probes, neighbours, label-free quality measures.

- `accuracy.py`: top-1 and top-5 accuracy, the same for all classifiers
- `feature_bank.py`: a ring buffer of the latest features of a block, for measures that need more than one batch
- `knn.py`: weighted nearest-neighbour accuracy of a frozen feature
- `linear.py`: linear probe: logistic regression on a frozen feature, fitted with L-BFGS
- `online.py`: measures of a block while it trains (`evaluation.online`), which do not change the training
- `online_probe.py`: a linear classifier that is trained along with a block, on its detached features
- `probes.py`: linear classifiers on frozen features, fitted by the papers' protocols
- `protocols.py`: the papers' protocols for a linear classifier on frozen features: optimizer, epochs, batch and
  learning rate
- `quality.py`: label-free quality measures of an embedding: LiDAR, RankMe, alpha-ReQ and the collapse level
- `rank_correlation.py`: rank correlations of a measure with the accuracy of networks, as the LiDAR paper reports them
"""
