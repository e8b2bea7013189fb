"""What every process of a run shares: run directory, threads, signals, environment, private folders.
- `closable.py`: objects that hold resources: a context manager at whose end `close` is called
- `compute.py`: thread count and determinism of PyTorch, set once per process and in the same way for every runtime
- `cores.py`: the cores that this process may use: its affinity, and the quota of its control groups. Does not import
  torch
- `environment.py`: the environment of a run's processes: what is set, and what of the surroundings is removed. Does
  not import torch
- `faults.py`: fault injection: triggers the faults of the configuration (`faults`), each once per run directory
- `files.py`: paths in a run directory, and reading and writing of its small files
- `json_lines.py`: JSON objects over a pipe, one per line: the messages between a process and the one that started it
- `keys.py`: the authentication key of a run as a file that only its user can read: 256 bits in hexadecimal
- `lost_device.py`: a GPU that computes no more for this process, in words: what happened to it, and what to do. Does
  not import torch
- `logs.py`: logging of a run's processes to standard error: one format, with control characters escaped
- `no_kernel.py`: an operation that has no deterministic kernel: recognises what PyTorch says of it, and puts it in
  words
- `notice.py`: tells the user what a wait is for, if it takes long
- `out_of_memory.py`: memory that ran out, in words: how much was asked for, and what the process had. Does not import
  torch
- `polling.py`: waits until descriptors can be read. Uses `poll`, because `select.select` fails for descriptors of
  1024 or more
- `private.py`: folders that only this user can change: for sockets, keys, and caches from which libraries load code
- `signals.py`: SIGTERM and the other signals that ask a run to take a snapshot and stop (the
  coordinator's monitor does), and the signals that processes of a run send each other
- `stacks.py`: what the threads of a process are doing, written to its log when it or a neighbour hangs
- `suspension.py`: notices that this process was suspended, so that the silence of others meanwhile does not count as
  a failure
- `tensor_files.py`: reading and writing tensors as safetensors files, which cannot run code when they are read
"""
