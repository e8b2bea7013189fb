"""The page that `onward report` writes: what is read of a run, its figures, its tables, and how they look.

- `charts.py`: the figures of a run over its steps: a line a stage, in the colours of the stages
- `colours.py`: the colours of a report, each for white and for dark; a stage has the same one in every figure and on
  the live page
- `gantt.py`: the pipeline at work: what every process did during a few steps in the middle of a run, from its trace
- `inline.py`: a figure within a page: SVG in the colours of the page, light or dark, and in its letters
- `number_format.py`: numbers, times and sizes as text
- `page.py`: the page itself: what `templates/report.html` is filled with, from the headline to the configuration
- `run_record.py`: everything that a report needs of a run directory, whatever state the run is in; damaged files are
  left out with a note
- `series.py`: the lines of `metrics.jsonl` as columns of numbers: one set for each stage, whatever is missing as NaN
- `tables.py`: the tables of a report; a cell is text, unless it is marked as HTML
"""
