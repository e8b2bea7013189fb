"""The views of an image: what is drawn for each, and the operations on pixels.

- `batch_operations.py`: `operations.py` for whole batches, on any device: what is done to colours, an amount for
  every image of its own
- `blurring.py`: blur of bytes with kernels of whole 256ths, which OpenCV computes in integers: half the time of its
  own Gaussian
- `device_photometrics.py`: jitter, grayscale, blur, solarisation and noise on the device of the first stage
  (`data.augment_on: device`)
- `evaluation_view.py`: the view of an image that is evaluated on: nothing random, resized and cut out at the centre
- `fast_operations.py`: what is done to the pixels of one view, fast: the operations of `operations.py` on bytes, by
  OpenCV and PyTorch
- `hue.py`: turning the hue of bytes: of large images without going to HSV and back, which takes twice as long and
  rounds twice
- `keyed_draws.py`: random bits that depend on a key and on nothing else: not on the process, the order or the past
- `normalize.py`: pixels to network input, on the device of the first stage, so that bytes travel and not floats
- `parameters.py`: the released two-view augmentation, drawn per sample from a key, and the third view that a loss may
  ask for
- `pil_operations.py`: what is done to the pixels of one view, given its parameters, with PIL (`augment_backend:
  pil`): nothing is random
- `resizing.py`: bicubic resizing of crops as PIL does it, with antialiasing, but on bytes and into memory that is
  there already
- `resolution.py`: how large the views of an epoch are: a pure function of the epoch, so that a run can start at any
  step
- `view_kinds.py`: what makes each view of an image: its size and an augmentation of its own
- `views.py`: the views of an image, from its pixels to the bytes that travel: what is drawn for each view, applied
"""
