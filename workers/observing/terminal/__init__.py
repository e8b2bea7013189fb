"""Output of a run to the terminal or a log. This file imports nothing, so the command line starts quickly.

- `board.py`: the state of a run on a terminal: one line for the run, one per stage, one per alarm
- `console.py`: the one way to speak to the user: sentences, tables, and lines that move in place
- `drawing.py`: lines that are redrawn in place on a terminal, and a progress line
- `progress.py`: the observer that prints: redrawn lines on a terminal, plain lines in a file
- `safe_stream.py`: keeps a run going when its output cannot be written: a closed pipe, a full disk
- `shares.py`: how a stage has spent the time of its last steps
- `step_format.py`: the numbers of a step as text, the same in a log and on a terminal
- `summary.py`: the summary at the end of a run: one screen with results, paths and the next commands
- `verbosity.py`: how much a run prints (`-q`, `-v`), and printing without loading rich
"""
