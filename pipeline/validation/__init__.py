"""From YAML and overrides to a checked configuration, and the words for what is wrong with it.

- `combinations.py`: what no section can check alone: values that are fine by themselves and make no sense together
- `idle_keys.py`: keys that another key's value makes idle: who gives one of them expects something that will not
  happen
- `loading.py`: from a YAML file and dotted overrides to a validated `Config`, or one readable error
- `online.py`: what fits together of the keys that say what is measured while training (`evaluation.online`)
- `paths.py`: paths in a configuration, made to mean the same later and elsewhere: `~` is the home directory, the rest
  absolute
- `pydantic_errors.py`: rewrites pydantic's errors for the people who wrote the YAML: dotted path, value found, what
  is allowed
- `topology.py`: what fits together of the keys that say how many processes share the work, and what happens when one
  dies
- `trust.py`: whose configuration may call functions: the user's own and root's, or one that the user says is to be
  trusted
- `views.py`: what fits together of the keys that say how many views there are and how large: `data.views`,
  `data.progressive`
"""
