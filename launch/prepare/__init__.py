"""From a configuration to a run that may start: everything that is checked and written before its first process.

- `config_differences.py`: how two configurations differ, and whether they are of one run
- `config_record.py`: which values every start of a run was given, so that an edit of `config.yaml` is seen later
- `data_index.py`: checks that a resumed run still has the data that it began with, by an index of them
  in the run directory
- `git_commit.py`: which commit a folder is checked out at, as git says; nothing where git is missing or slow
- `initial_weights.py`: the weights that a run begins with: that they are there and fit, and their digest
- `link_kind.py`: which kind of link a run uses where the user leaves it to us
- `lock_holders.py`: which processes hold a lock: as the kernel lists them, and whose open files they are
- `longer.py`: whether a run may be trained longer than was first planned
- `placement.py`: which device runs which stage: a pure function of the configuration and the number of GPUs
- `ports.py`: whether a port can be served, checked before anything starts rather than after
- `preflight.py`: everything that can be found wrong before a process starts, in seconds and without torch
- `presets.py`: the file that CONFIG names: a path, or the name of a preset that is installed with the package
- `prepared_run.py`: the one way from a configuration to a run that may start, which ends in one record
- `provenance.py`: where a run came from: `provenance.json`, one record for every start, and copies of the user's own
  modules
- `ranks.py`: whether the processes that a launcher started fit the run, checked before anything is written
- `recompute.py`: what each stage has to compute again so that it fits its device: the cheapest that does
- `resume.py`: continuing a run that was stopped: whether the directory holds the same run, and from which snapshot
- `run_dir.py`: the run directory, into which a run writes everything: claimed, checked and begun before any process
  starts
- `run_lock.py`: the lock of a run directory: held from before the first read to the end of the last process, so that
  only one run writes to it
- `start_commands.py`: the commands that start a run on several hosts, and which of its processes then run on which host
- `thread_advice.py`: what a better number of threads would be, for stages that compute on the CPU. Does not import
  torch
- `user_modules.py`: the source files of the modules that a configuration names, and of those that they import: the
  user's own code
"""
