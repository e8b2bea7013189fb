"""The augmented views of an image: the random parameters of each, and the operations on pixels.

- `batch_operations.py`: the colour operations and the blur for whole batches, on any device, with an amount per image
- `blurring.py`: blur of bytes with kernels in units of 1/256, which OpenCV computes in integers, twice as fast as its
  Gaussian blur
- `device_photometrics.py`: jitter, grayscale, blur, solarisation and noise on the device of the first stage
  (`data.augment_on: device`)
- `evaluation_view.py`: the view for evaluation: deterministic, resized and cropped at the centre
- `fast_operations.py`: the operations on the pixels of one view, fast, on bytes, with OpenCV and PyTorch
  (`augment_backend: fast`)
- `hue.py`: turns the hue of images of bytes; large ones without HSV, which takes twice as long and rounds twice
- `keyed_draws.py`: random numbers from a key, independent of the process, the order and earlier draws
- `normalize.py`: pixels to network input, on the device of the first stage, so that bytes are sent and not floats
- `parameters.py`: the random parameters of each view, drawn from a key: the released two-view augmentation, and the
  negative patch
- `pil_operations.py`: the operations on the pixels of one view, given its parameters, with PIL (`augment_backend:
  pil`)
- `resizing.py`: bicubic resizing of crops as PIL does it, with antialiasing, on bytes and into existing memory
- `resolution.py`: the sizes of the views, as a pure function of the epoch, so that a run can start at any step
- `view_kinds.py`: the size and the augmentation settings of each view of an image
- `views.py`: makes the views of an image: draws the parameters of each and applies them
"""
