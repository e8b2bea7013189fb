"""What was measured, for people: tables, files for other programs, and figures.

- `comparison.py`: evaluations side by side: means and spreads over seeds, and differences with their standard errors
- `comparison_plots.py`: the figures of a comparison: every quantity by block, a line a group of runs, with the spread
  over its seeds
- `figures.py`: how every figure looks and is written: for a paper's column, for the colour-blind, and the same bytes
  each time
- `grid.py`: a table as text in cells, before it is known whether a terminal or a Markdown file will show it
- `naming.py`: how measures are called and how their numbers are written: one place for tables, files and figures
- `plots.py`: the figures of one evaluation: accuracy by block, spectra of the features, and what corruptions cost
- `run_table.py`: what `onward check` prints: the resolved configuration, and as comments what the run amounts to
- `settings.py`: which settings of an evaluation change which of its numbers: a comparison says where it compares
  unlike
- `table.py`: the tables of one evaluation: what `onward evaluate` prints, and what its Markdown file holds
- `writing.py`: an evaluation as files for other programs and for papers: CSV with every digit, Markdown with the
  tables
"""
