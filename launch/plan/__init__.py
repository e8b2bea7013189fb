"""What a run will need, computed before it starts, without a GPU and without the data.

- `autocast_of_cuda.py`: on a CPU, the casts that autocast makes on CUDA
- `fake_stage.py`: the stages of one process on tensors that have sizes and no memory
- `live_bytes.py`: counts the bytes of all tensors that are alive while code runs, without running its kernels
- `online.py`: what measures beside the training hold and compute (`evaluation.online`)
- `process_memory.py`: what the tensors of one training process take, stage by stage, and the moment at which they take
  most
- `memories.py`: the same of any process of a run, each computed once, and stages that are alike as one
- `links.py`: what every link carries and holds
- `evaluation.py`: what `onward evaluate` takes
- `host.py`: the memory of the host that all of it takes together, and what there is
- `gpus.py`: how much memory a device has: GPUs by name or size, those of this machine, and the memory of the machine
  itself
- `bounds.py`: more than a training process will need, in a millisecond and without torch: where that fits, no account
  is made
- `devices.py`: what the processes of a run take of every device together, term by term, and whether that fits
- `remedies.py`: what would make a run fit its devices: each change is tried with the account, and the least of its
  kind is named
- `deciding.py`: `memory.recompute: auto` decided by the account
- `fitting.py`: whether the devices hold a run, asked before it starts: refuses what
  cannot fit
- `data_facts.py`: what is known of the data set
- `account.py`: all of that as records, which load no torch
- `compute.py`: computes them
- `answer_process.py`: a process that answers one question, with a limit of time
- `child.py`: the same in a process of its own, with a limit of time
"""
