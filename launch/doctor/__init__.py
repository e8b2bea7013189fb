"""What `onward doctor` looks at, line by line; made of what a run makes sure of before it starts.

A line is a function of facts, so that every remedy can be tried without the machine that needs it.

- `comparison.py`: what two hosts find out about each other: versions, clocks, the way between them, the run directory
- `findings.py`: one line of the page: right, worth knowing, or wrong with a remedy
- `limits.py`: what the system allows a process: memory, cores, open files, shared memory
- `names.py`: interfaces, the own name, and a port of this host
- `peer.py`: the connection between the two hosts that compare themselves
- `runs_folder.py`: the folder of the runs: whether it can be written and locked, and has room
- `software.py`: versions, GPUs, and what reaches what
"""
