"""The processes of a run: who starts them, what each runs first, and how they end.

- `announcement.py`: what rank 0 announces to the other ranks through torchrun's store, and why they may trust it
- `apart.py`: a rank on a host that does not see the run directory: what it takes from the announcement, and its own
  folder
- `child.py`: processes that end when their parent does: each watches a pipe that its parent holds open
- `coordinator_main.py`: the coordinator's process: started with one JSON object on its standard input, ends with its
  parent
- `error_file.py`: the file in which torchrun looks for the reason of a rank's failure, to show it in its summary
- `fork_client.py`: the starting side of the fork server: asks it for processes, and hears how they end
- `fork_server.py`: one process that imports everything once and then forks: a run's processes start in a fraction of
  a second
- `local.py`: `onward train` after the checks: starts the processes of a run, restarts it if it may, and prints how it
  ended
- `measuring.py`: the final evaluation, in a new process, of a run that was trained but ended before it was
  evaluated
- `missing_ranks.py`: who has not come to the start of a run on several hosts, and what a rank that ends leaves for
  those that wait
- `own_process.py`: a command in a process of its own, for a Python program: what it says, how it is asked to stop
- `out_of_memory.py`: after a stage has run out of memory: adds to the record of the failure what the account says, and
  what needs less
- `presence.py`: what every rank says before a run on several hosts, and in what the ranks may not differ
- `rank_coordinator.py`: the coordinator of a run under torchrun or srun: a child of rank 0, and what that announces
  of it
- `rank_output.py`: what a rank says to the user: what all ranks of its host would say is said by the first of them
- `rank_run.py`: the run of a rank of torchrun or srun, or of a serial process: handed over by the command line, or
  prepared here
- `same_data.py`: whether every rank that reads images itself has those of rank 0, before training is begun
- `shared_folder.py`: whether all hosts see the same run directory: each writes a small file there, and each reads
  that of another
- `slurm.py`: what srun tells its tasks, in torchrun's variables: `srun --ntasks=PROCESSES python -m launch.train
  CONFIG`
- `stage_main.py`: one training process of `onward train`: started with one JSON object on its standard input, ends
  with its parent
- `start_check.py`: what the ranks on several hosts make sure of before anything is written and before any group of
  torch is made
- `supervise.py`: one attempt at a pipelined run on this host: starts its processes, restarts some, and makes sure that
  all end
- `torchrun.py`: what torchrun starts on every rank: `torchrun --nproc-per-node=PROCESSES -m launch.train CONFIG
  [key=value ...]`
- `waiting_agent.py`: torchrun's agent on a host that is cut off: it waits for an answer of its store on the first host
"""
