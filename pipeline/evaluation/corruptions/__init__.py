"""The common corruptions of ImageNet-C, CIFAR-10-C and Tiny-ImageNet-C, computed for any image from a key.

Published by Hendrycks and Dietterich ("Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, arXiv 1903.12261); formulas and parameters follow the authors' code (`make_imagenet_c.py`, `make_cifar_c.py`,
`make_tinyimagenet_c.py`).

- `blur.py`: blur: defocus, frosted glass, motion, zoom and Gaussian; arguments and results as in `noise`
- `corrupt.py`: one corrupted image, by name and severity
- `digital.py`: digital corruptions: brightness, contrast, saturation, stretching, pixelation, JPEG; as in `noise`
- `drawing.py`: the random numbers of one corrupted image, from a key, independent of order, threads and processes
- `errors.py`: corruption errors of a block, and their means relative to a baseline (Hendrycks and Dietterich, section
  4.2)
- `filters.py`: filters that several corruptions use: Gaussian and motion blur, zoom, bilinear sampling, plasma
- `frost_textures.py`: generated pictures of ice for the corruption `frost`
- `names.py`: the names of the corruptions; without torch, because the configuration uses them too
- `noise.py`: noise on single pixels: Gaussian, shot, impulse and speckle
- `parameters.py`: the published parameters of each corruption and severity, which depend on the size of the images
- `weather.py`: weather: snow, frost, fog, and splashes of water or mud; arguments and results as in `noise`
"""
