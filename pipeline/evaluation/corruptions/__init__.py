"""The common corruptions of ImageNet-C, CIFAR-10-C and Tiny-ImageNet-C, computed for any image by a key.

Published by Hendrycks and Dietterich ("Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, arXiv 1903.12261); formulas and parameters follow the authors' code (`make_imagenet_c.py`, `make_cifar_c.py`,
`make_tinyimagenet_c.py`).
"""
