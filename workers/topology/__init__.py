"""Which process trains what, and how the processes of a run find each other.

- `members.py`: which process trains what: the stages in order, some sharing a process, some shared by several. No
  torch here
- `rendezvous.py`: what the processes of a run must know to find and to trust each other
- `replica_group.py`: how the replicas of a stage meet and become torch.distributed's default group of their processes
- `torchrun.py`: how the processes that torchrun started meet: a small key-value store, before any link exists
"""
