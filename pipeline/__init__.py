"""What is trained, and how it is measured: everything that needs no process, no clock and no socket.

- `backbones/`: the blocks of a network, for every family of networks: ResNets, Vision Transformers, any torch module
- `config/`: the configuration of a run: every key with its unit, default and allowed values; one file per section
- `data/`: the images of a run: data sets, their augmented views, and their order
- `engines/`: computes the gradients of a stage's loss and applies the optimizer's steps, as `engine.kind` says
- `evaluation/`: evaluation of a trained network: features of data sets, classifiers on them, corrupted images
- `measures/`: measures of features, as functions of tensors: probes, neighbours, label-free quality measures
- `objectives/`: the local losses, one file each; a new one is registered in `OBJECTIVES`
- `optim/`: optimizers: the variants of LARS, parameter groups, and learning rates as functions of the step
- `replicas/`: collectives of the data-parallel replicas of one stage, which together compute what one process computes
  from the whole batch
- `stage/`: one stage of a run: a block, its head, its loss and its optimizer; no process
- `validation/`: from YAML and overrides to a checked configuration, and its error messages
- `errors.py`: errors for users: what is wrong, where, what is allowed, what to do
- `ordinary_files.py`: opens files that another user may have placed: only regular files, of bounded size, never
  through a link; and unnamed files in memory
- `plugins.py`: imports and calls what the configuration names as `PACKAGE.MODULE:NAME`, with error messages for users
- `precision.py`: number format, memory layout and compilation of a stage, and the scaling of an fp16 loss
- `randomness.py`: random numbers seeded by a key that says what they are for, never by process or time
- `recompute.py`: a part of a network that is computed again in the backward pass, instead of keeping what it computed
- `serial.py`: all stages in one process: the algorithm in its plainest form, and the reference for the pipeline
- `shapes.py`: the shape of the activations at every cut, and the checks that a network has one
"""
