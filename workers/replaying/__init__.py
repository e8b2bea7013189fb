"""`onward replay`: one step of one stage computed again, and everything that can be seen of it.

- `capture.py`: hooks on the modules of a stage: what they gave, the gradients that came back, and the first that was
  not finite
- `modules.py`: the numbers of one module, and where something was not finite first
- `pictures.py`: the images of a batch as they were seen, those that matter most first
- `record.py`: what is known of a replayed step, and the folder that it is written to
- `replay.py`: trains the stages from a snapshot to a step as the run did, and computes that step while it is watched
"""
