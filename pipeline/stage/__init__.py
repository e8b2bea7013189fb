"""One stage of a run: a block, its head, its loss and its optimizer, without any process.

- `bit_flips.py`: a bit of a stage's memory that is flipped on purpose (`faults`): where in a step that may happen, and
  which bit
- `codecs.py`: the codecs that write activations in fewer bytes for the next stage; each loses precision. A new one is
  registered in `build_codec`
- `digests.py`: digests of a stage's steps: of what came in, the loss, the gradient and the weights, and a chain of all
  of them
- `fake.py`: stages whose tensors have sizes and no memory: what they compute is known without computing it
- `fold.py`: a digest of tensors that costs little: their bits as integers, multiplied by weights of their positions and
  summed
- `forward.py`: the forward half of a stage: its views through the block, and each block's output through the head
- `inputs.py`: the input of a stage: the views out of one tensor, in the format in which the stage computes
- `noise.py`: noise on activations, seen by a block's own head and by the next block alike
- `phases.py`: which blocks learn at which step: all of them, or in mode sequential one after the other
- `report.py`: the report of a stage about one step, with the norms of its gradient and update, which not every step
  measures
- `skipped_steps.py`: steps that a block had to skip because its loss, or a gradient, was not finite; too many in a
  row end the run
- `spans.py`: named parts of a step, for timing: the pipeline itself reads no clock
- `stage.py`: one stage: a block, its head, its loss and its optimizer. Pure: no process, no clock, no socket
- `state.py`: the state of a stage as named tensors and a few numbers: everything that the next step depends on
- `target_network.py`: the target network of BYOL: a slowly moving copy of a block and its head, whose embeddings are
  predicted
- `units.py`: a block and its head run unit by unit, where a stage keeps only the input of each unit for its
  backward pass
- `view_passes.py`: the backward pass of one view after the other, where a stage keeps the activations of one view at a
  time
"""
