"""Results for people and for other programs: tables, files and figures of evaluations and comparisons.

- `comparison_plots.py`: the figures of a comparison: every quantity by block, one line per group of runs, with the
  spread over its seeds
- `comparison_tables.py`: evaluations side by side: means and spreads over seeds, and differences with their standard
  errors
- `evaluation_plots.py`: the figures of one evaluation: accuracy by block, spectra of the features, errors on corrupted
  images
- `evaluation_settings.py`: which settings of an evaluation change which of its numbers, so that a comparison can warn
  where they differ
- `evaluation_tables.py`: the tables of one evaluation: what `onward evaluate` prints, and what its Markdown file holds
- `figure_style.py`: how every figure looks and is written: for a paper's column and for the colour-blind, the same
  bytes each time
- `grid.py`: a table of text cells, which a terminal or a Markdown file may show
- `listed_run.py`: what a list of many runs says of each: read from its small files and two lines of `metrics.jsonl`
- `measure_names.py`: how measures are called and how their numbers are written: one place for tables, files and figures
- `memory_table.py`: `onward check --memory`: what the tensors of every process take, as lines of text
- `plan_sentences.py`: `onward plan`: how fast, what limits it, what would help, what the next device brings
- `plan_tables.py`: `onward plan`: a row for each stage; a column for each of two settings
- `printing.py`: how commands print: one console, lines that are printed as they are, and tables cut to its width
- `result_files.py`: an evaluation as files for other programs and for papers: CSV with every digit, Markdown with the
  tables
- `run_state.py`: what became of a run, by its lock and the files that it ends with
"""
