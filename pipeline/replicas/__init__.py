"""What the replicas of one stage do together, so that they compute what one process would from the whole batch.

Every replica has its own rows of the batch and the whole loss: embeddings are gathered before the objective, and the
gradient that comes back is multiplied by the number of replicas, so that the average over the replicas, which is what
engines compute, is the gradient of one process. That holds for what comes before the gathering, where each replica
has a part of the gradient, and for what comes after it, where each has all of it.

- `batch_norm.py`: batch norm over the whole batch, of which every replica has its own rows
- `collectives.py`: differentiable functions of the whole batch, of which every replica has its own rows
- `gradients.py`: gradients summed over the replicas while the backward pass still computes others
- `sharding.py`: the optimizer's state sharded over the replicas of a stage, and gathered for a snapshot
- `team.py`: the replicas of one stage from the side of one of them: which rows it has, and its collectives
"""

from pipeline.replicas.batch_norm import SynchronisedBatchNorm, move_running_statistics, synchronise_batch_norms
from pipeline.replicas.collectives import gather_rows, whole_deviation
from pipeline.replicas.gradients import BUCKET_BYTES, GradientSum
from pipeline.replicas.sharding import held_by, on_first, shard_optimizer
from pipeline.replicas.team import SOLO, KeptMoments, Moments, ReplicaGroup, ReplicaLost

__all__ = [
    "BUCKET_BYTES",
    "SOLO",
    "GradientSum",
    "KeptMoments",
    "Moments",
    "ReplicaGroup",
    "ReplicaLost",
    "SynchronisedBatchNorm",
    "gather_rows",
    "held_by",
    "move_running_statistics",
    "on_first",
    "shard_optimizer",
    "synchronise_batch_norms",
    "whole_deviation",
]
