"""The page that `onward report` writes: reading a run, figures, tables, the template.

- `charts.py`: the figures of a run over its steps: one line per stage, in the colours of the stages
- `colours.py`: the colours of a report, for light and dark; a stage has the same colour in every figure and on the
  live page
- `gantt.py`: the Gantt chart: what every process did during a few steps in the middle of a run, from its trace
- `inline.py`: a figure as inline SVG, in the page's colours and font
- `number_format.py`: numbers, times and sizes as text
- `page.py`: the page: the values that fill `templates/report.html`
- `run_record.py`: everything that a report needs of a run directory, whatever state the run is in; damaged files are
  left out with a note
- `series.py`: the lines of `metrics.jsonl` as columns of numbers: one set for each stage, whatever is missing as NaN
- `starts.py`: the starts of a run as text: when, where, with which versions, commit and modules
- `tables.py`: the tables of a report; a cell is text unless it is `Markup`
"""
