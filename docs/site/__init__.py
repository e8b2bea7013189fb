"""What makes the site: pages of the reference that are written from the code, and a hook that takes in other documents.

- `generate.py`: writes every generated page; `python -m docs.site.generate`
- `markdown.py`: tables
- `key_docs.py`: the docstrings of keys
- `configuration.py`: `reference/configuration.md`
- `command_line.py`: `reference/command-line.md`
- `presets.py`: `reference/presets.md`, from the headers of `configs/*.yaml`
- `run_directory.py`: `reference/run-directory.md`
- `surroundings.py`: `reference/exit-codes.md` and `reference/alarms.md`
- `python_api.py`: `reference/python.md`
- `pages.py`: the hook of MkDocs
"""
