"""What every process of a run has: its directory, its threads, its signals, its surroundings.

- `compute.py`: how a process computes: thread count and determinism, set once, the same for every runtime
- `environment.py`: what a process of a run is started with, and what of its surroundings must not change it; known
  without torch
- `faults.py`: makes the faults of the configuration happen, each once a run directory
- `files.py`: where things are in a run directory, and how its small files are read and written
- `json_lines.py`: JSON objects over a pipe, one per line: the messages between a process and the one that started it
- `keys.py`: the key of a run as a file: 256 bits in hexadecimal, for nobody's eyes but the user's
- `logs.py`: the logs of a run's processes: one form, in which nothing that a terminal would act on is written as it
  is
- `polling.py`: which open files have something to read, whatever their numbers are: `select.select` fails on those
  from 1024 on
- `private.py`: folders that nobody but this user can change: for sockets, keys, and the caches from which libraries
  run code
- `signals.py`: which signals ask a run to stop after a snapshot, and the one that wakes a process of ours
- `suspension.py`: notices that this process itself stood still, so that nobody is blamed for its silence
- `tensor_files.py`: files of tensors: safetensors only, so that reading them can run no code
"""
