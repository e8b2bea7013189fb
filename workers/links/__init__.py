"""Links carry batches from one stage to the next: one file per kind of link, and the parts that they share.
- `around.py`: ends of a link around another end: what they do not change, the end inside does
- `base.py`: the interface of a link: its two ends, the address that they share, and their errors
- `checked.py`: a link whose messages carry a checksum: computed before a message leaves, and again when it has arrived
- `coded.py`: A link that compresses activations: a codec around the two ends of a link of any kind
- `connecting.py`: connects the two ends of a framed link, authenticates them and compares their settings
- `cuda.py`: an NVIDIA GPU as a queue link uses it: CUDA IPC, copies in a stream of its own, and pinned host memory
- `factory.py`: opens the two ends of a link of any kind; the only module that lists the kinds
- `framed.py`: the two ends of a link whose headers travel over an authenticated socket; subclasses transfer the
  tensors
- `gpu.py`: what a queue link asks of a GPU
- `handshake.py`: the hellos that the two ends of a link exchange before the first message, and their comparison
- `listening.py`: stops Gloo's ports from accepting further connections once a process group has formed
- `memory.py`: anonymous shared memory, and the messages of one link in it
- `messages.py`: what links carry: the header of a batch, the specification of its tensor, and both together as a
  message
- `p2p.py`: the link between processes of any hosts, by point-to-point transfers of Gloo or NCCL into posted receive
  buffers
- `pair_group.py`: point-to-point transfers between two processes, by a process group of exactly two over Gloo or NCCL
- `pinned.py`: slots in shared memory of the host for ends on a GPU: pinned, never pageable
- `queue.py`: the link between two processes of one host: tensors in memory that both see, headers over a Unix socket
- `replay.py`: keeps the batches that a restarted stage may need again, in memory and, beyond a limit, on disk
- `replaying.py`: ends of a link that survive a restart of the process at the other end (`restart: stage`)
- `resharding.py`: links between stages with different numbers of replicas: each pair whose rows of the batch overlap
  has its own link
- `ring.py`: slots on the receiver's GPU, which the sender opens by handles and writes without the host
- `rpc.py`: the link between processes of any hosts, over `torch.distributed.rpc`
- `rpc_agent.py`: starts and stops the RPC agent of this process, both within a time limit
- `rpc_calls.py`: the handlers of the RPC link, which other processes call, and a registry of the link ends that they
  act on
- `slot_choice.py`: decides where the slots of a queue link lie, from what its two ends state in their hellos
- `slots.py`: where the messages of a queue link lie on their way, as its two ends see it; and the plainest of them
- `store.py`: the key-value store through which the two processes of a link find each other
- `wire.py`: authenticated connections between two processes, over a Unix socket or TCP, with a time limit on every
  call
"""
