"""What is trained, and how it is measured: everything that needs no process, no clock and no socket.

- `backbones/`: the block of a stage, whichever family of networks it is cut from: the one place that knows them all
- `config/`: the configuration of a run: every key, its unit, its default and what it accepts; one file a section
- `data/`: the images of a run: data sets, the views that are made of them, and their order
- `engines/`: what runs the backward pass of a stage and the optimizer step, by the configuration's `engine.kind`
- `evaluation/`: what a trained network is worth: features of data sets, classifiers on them, corrupted images
- `measures/`: measures of features, as functions of tensors: probes, neighbours, and quality without labels
- `objectives/`: the local losses, one file each; `OBJECTIVES` is where a new one is named
- `optim/`: how a block's parameters move: the variants of LARS, parameter groups, and learning rates by the step
- `replicas/`: what the replicas of one stage do together, so that they compute what one process would from the whole
  batch
- `stage/`: one stage of a run: a block, its head, its loss and its optimizer, without any process
- `validation/`: from YAML and overrides to a checked configuration, and the words for what is wrong with it
- `errors.py`: errors that users are meant to read: what is wrong, where, what is allowed, what to do
- `ordinary_files.py`: opens files that somebody else may have put there: ordinary ones only, of bounded size, and
  nothing by a link
- `plugins.py`: objects that the user names as `PACKAGE.MODULE:NAME`: imported, called, and refused in words if that
  fails
- `precision.py`: how a stage computes: number format, memory layout, compilation, and the scaling of an fp16 loss
- `randomness.py`: random numbers keyed by what they are for, never by which process draws them or when
- `recompute.py`: a part of a network that is computed again in the backward pass, instead of keeping what it computed
- `serial.py`: all stages in one process: the algorithm in its plainest form, and the reference for the pipeline
- `shapes.py`: the shape of the activations at every cut, and the networks that cannot have one
"""
