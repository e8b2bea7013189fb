"""The images of a run: data sets, their augmented views, and their order.

- `augment/`: the augmented views of an image: the random parameters of each, and the operations on pixels
- `sets/`: the data sets by name, and how their images are found, read and decoded
- `npz.py`: reads `.npz` files with an expected content: headers are checked before memory is allocated
- `packing.py`: packs views of several sizes into one tensor and back, so that links and slices handle one form
- `sampler.py`: the images of each step, as a pure function of the step, so that a run can start at any step
- `to_device.py`: small tensors of the host, such as labels, on their way to a device
"""
