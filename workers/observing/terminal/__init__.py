"""What a person at a terminal sees of a run, and what a log keeps of it. Imports nothing: the command line is quick.

- `board.py`: how a run stands, drawn on a terminal: a line for the run, a line for every stage, a line for every
  alarm
- `console.py`: the one way to speak to the user: sentences, tables, and lines that move in place
- `drawing.py`: what moves on a terminal: lines that are redrawn in place, and one line of how far something is
- `progress.py`: the observer that a person reads: lines that move on a terminal, plain lines in a file
- `safe_stream.py`: a run that goes on although nobody can be told about it any more: its output is a closed pipe or a
  full disk
- `shares.py`: how a stage has spent the time of its last steps
- `step_format.py`: the numbers of a step as text, the same in a log and on a terminal
- `summary.py`: what a run ends with: one screen that says what came out, where it is, and what to do next
- `verbosity.py`: how much a run says to its user
"""
