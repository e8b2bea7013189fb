"""The processes of a run: who starts them, what each runs first, and how they end.

- `child.py`: processes that end when their parent does: each watches a pipe that its parent holds open
- `coordinator_main.py`: the coordinator's process: started with one JSON object on its standard input, ends with its
  parent
- `fork_client.py`: the starting side of the fork server: asks it for processes, and hears how they end
- `fork_server.py`: one process that imports everything once and then forks: a run's processes start in a fraction of
  a second
- `local.py`: `onward train` after the checks: starts the run, starts it again if it may, and says how it ended
- `measuring.py`: what is left to do for a run that was ended while its blocks were measured, in a process like the
  one that ended
- `rank_run.py`: the run of a rank of torchrun or of a serial process: handed over by the command line, or prepared
  here
- `rank_word.py`: what rank 0 tells the others through torchrun's store, and why they may believe it
- `stage_main.py`: one training process of `onward train`: started with one JSON object on its standard input, ends
  with its parent
- `supervise.py`: one attempt at a pipelined run on this host: starts its processes, restarts some, and sees that all
  of them end
- `torchrun.py`: what torchrun starts on every rank: `torchrun --nproc-per-node=PROCESSES -m launch.train CONFIG
  [key=value ...]`
"""
