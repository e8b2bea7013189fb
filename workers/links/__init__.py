"""Links carry batches from one stage to the next; one file a kind, and what they share.

- `base.py`: what every link promises, whatever it is made of: the two ends, the address they share, their errors
- `coded.py`: the two ends of a link that writes activations in fewer bytes: a codec around the ends of any kind
- `connecting.py`: how the two ends of a framed link find each other: the right processes, and agreed on what they
  will carry
- `factory.py`: opens the two ends of a link of any kind; the only place that knows which kinds there are
- `framed.py`: the two ends of a link whose headers travel over an authenticated socket; how the tensors travel is
  left open
- `handshake.py`: what the two ends of a link tell each other before the first message, and how they compare it
- `listening.py`: ports that libraries open and never close, closed to newcomers once those that they were opened for
  have come
- `memory.py`: nameless shared memory, and the messages of one link in it
- `messages.py`: what travels between processes: the header of a batch, and the shape a link is opened for
- `p2p.py`: the link between two processes of any hosts by send and receive, into buffers that wait for the messages
- `pair_group.py`: two processes that pass tensors to each other: a process group of exactly two, Gloo or NCCL
- `queue.py`: the link between two processes of one host: messages in shared memory, their headers over a Unix socket
- `replay.py`: the batches that a restarted stage may need again: in the host's memory, and on disk where there are
  many
- `replaying.py`: ends of a link that outlive the process at the other end: what it needs when it comes back is sent
  again
- `resharding.py`: between two stages of different numbers of replicas: who sends which rows of the batch to whom, and
  both ends of it
- `rpc.py`: the link between processes of any hosts, over `torch.distributed.rpc`
- `rpc_agent.py`: starting and stopping this process's RPC agent, both within a time limit
- `rpc_calls.py`: what one process may call in another: the handlers of the RPC link, and the ends they act on
- `store.py`: the place where the two processes of a link leave word for each other before they are connected
- `wire.py`: authenticated connections between two processes, over a Unix socket or TCP, with a limit on every wait
"""
