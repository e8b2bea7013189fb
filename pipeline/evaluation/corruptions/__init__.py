"""The common corruptions of ImageNet-C, CIFAR-10-C and Tiny-ImageNet-C, computed for any image by a key.

Published by Hendrycks and Dietterich ("Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, arXiv 1903.12261); formulas and parameters follow the authors' code (`make_imagenet_c.py`, `make_cifar_c.py`,
`make_tinyimagenet_c.py`).

- `blur.py`: blur: defocus, frosted glass, motion, zoom and Gaussian; arguments and results as in `noise`
- `corrupt.py`: one corrupted image, by name and severity
- `digital.py`: what cameras and files do: brightness, contrast, saturation, stretching, pixels, JPEG; as in `noise`
- `drawing.py`: the random numbers of one corrupted image: from a key, so that order, threads and processes do not
  matter
- `errors.py`: corruption errors of a block, and their means relative to a baseline (Hendrycks and Dietterich, section
  4.2)
- `filters.py`: what several corruptions are made of: Gaussian and motion blur, magnifying, bilinear reading, plasma
- `frost_textures.py`: pictures of ice for the corruption `frost`, drawn instead of photographed
- `names.py`: the names of the corruptions, for the configuration as well as for what computes them; so no torch here
- `noise.py`: noise on single pixels: Gaussian, shot, impulse and speckle
- `parameters.py`: how strong each corruption is at each severity: the published numbers, which differ with the size
  of the images
- `weather.py`: weather: snow, frost, fog, and splashes of water or mud; arguments and results as in `noise`
"""
