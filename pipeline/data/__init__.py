"""The images of a run: data sets, the views that are made of them, and their order.

- `augment/`: the views of an image: what is drawn for each, and the operations on pixels
- `sets/`: the data sets by name, and how their images are found, read and decoded
- `npz.py`: reads `.npz` files whose arrays are known before: what their headers announce is compared before memory is
  taken
- `packing.py`: views of several sizes as one tensor and back, so that whatever carries or slices a batch needs to
  know one form
- `sampler.py`: which images make up which step: a pure function of the step, so that a run can start at any step
"""
