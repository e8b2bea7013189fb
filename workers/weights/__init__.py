"""Weights that come from elsewhere: read, recognised by their names, fitted to the stages of a run.

- `fitting.py`: which of the tensors that were read are which weights of a run, and a table of those that do not fit
- `initial_main.py`: main program of the process that makes the initial weights of a run, before training
- `pickled.py`: reads what `torch.save` wrote, in a process without rights that converts it to safetensors
- `rights.py`: takes the rights from a process: network, files, new processes, memory and time without limit
- `sources.py`: what `init_from` can name: a run, a snapshot, a file; its kind and its digest. Does not import torch
- `tensors.py`: the tensors of a source, under the names that they have there
- `unpickling.py`: what that process does: the one place in which something is unpickled, plain tensors alone
"""
