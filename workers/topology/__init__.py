"""Which process trains which stages, and how the processes of a run connect.
- `joining.py`: how a rank of torchrun, srun or `onward train --hosts` finds the store of all ranks
- `network.py`: by which address other hosts reach this one: the addresses that it has, and the test whether one is
  reached
- `processes.py`: which process trains which stages. Does not import torch
- `rendezvous.py`: what the processes of a run need to find and to authenticate each other
- `replica_group.py`: forms the process group of a stage's replicas, as torch.distributed's default group
- `torchrun.py`: exchange of values between the ranks of torchrun through its key-value store, before any link exists
"""
