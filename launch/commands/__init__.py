"""The commands of `onward`: one file per command, and what several of them read.

`launch/cli.py` registers each with its arguments, and has `train` and `resume` itself.

- `arguments.py`: arguments and options that several commands have
- `bench.py`: `onward bench method`: training methods compared on one budget and several seeds
- `bench_app.py`: the arguments of `onward bench method`; `bench.py` does the work
- `check.py`: `onward check`: makes every check that `train` makes, and prints what the run amounts to
- `compare.py`: `onward compare RUN...`: runs side by side; runs that differ only in their seed count as one
- `convert.py`: `onward convert FILE`: what weights are in a file, and a copy of them under torchvision's names
- `bisect.py`: `onward bisect RUN_A RUN_B`: where two runs part, and what differs between them
- `bisect_app.py`: `onward bisect`, as the command line has it
- `data.py`: the arguments of `onward data pack` and `onward data verify`; `pack.py` does the work
- `doctor.py`: `onward doctor`: one page about this host, and about the way to another, each line right or with a
  remedy
- `evaluate.py`: `onward evaluate RUN`: measure every block of a run, and write `evaluation.json`, tables and figures
- `evaluation_reader.py`: reads the evaluations that `onward evaluate` wrote, given as `RUN`, or `RUN@STEPS` for a
  snapshot
- `export.py`: `onward export`: the trained backbone as one file that needs neither the run nor Onward, or as a folder
- `image_scan.py`: `onward check --headers` and `--all`: reads every image of the training and test set, and lists
  the broken ones
- `pack.py`: `onward data pack` and `onward data verify`: a copy of a data set that is quicker to read, and whether it
  is whole
- `plan.py`: `onward plan CONFIG --gpus N`: the best cuts and replicas for N devices; `--what-if`: two settings side by
  side
- `plan_answers.py`: what it has found, as text for people and as a document for programs
- `plan_app.py`: `onward plan`, as the command line has it
- `replay.py`: `onward replay RUN --stage K --step N`: one step of one stage again: loss, norms, images, tensors
- `replay_app.py`: the arguments of `onward replay`; `replay.py` does the work
- `report.py`: `onward report`: one self-contained page about a run, and the same figures for a paper
- `run_groups.py`: runs that differ only in their seed count as one, in `compare`
- `runs.py`: `onward runs FOLDER`: all runs in a folder, one line each: state, length, speed, best numbers, and what
  differs
- `runs_app.py`: the arguments of `onward runs` and `onward targets`; `runs.py` and `targets.py` do the work
- `select.py`: `onward select RUN...`: runs ordered by a measure that needs no labels, and how far it agrees with
  accuracy
- `selection_candidates.py`: the evaluations that `onward select` chooses from, of runs and of snapshots of runs
- `targets.py`: `onward targets FOLDER FILE`: tells Prometheus where the runs in a folder serve their metrics (file_sd)
- `verify.py`: `onward verify RUN`: computes steps of a run again from a snapshot, and compares what it has recorded of
  them
- `verify_app.py`: `onward verify`, as the command line has it
- `weights.py`: the arguments of `onward export` and `onward convert`; `export.py` and `convert.py` do the work
"""
