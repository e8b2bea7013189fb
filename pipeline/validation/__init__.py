"""From YAML and overrides to a checked configuration, and its error messages.

- `combinations.py`: checks across sections: values that are valid alone and not together
- `idle_keys.py`: finds keys that have no effect because of another key's value
- `initial.py`: checks of frozen stages, and sentences about the weights that they begin with
- `json_values.py`: from what YAML may hold to what JSON may hold, within bounds that no configuration reaches
- `loading.py`: from a YAML file and dotted overrides to a validated `Config`, or one readable error
- `networks.py`: where a network is cut whose configuration leaves that open, decided before the start
- `online.py`: checks across the keys of measures while training (`evaluation.online`)
- `paths.py`: makes the paths in a configuration absolute, and expands `~`
- `pydantic_errors.py`: rewrites pydantic's errors for users: dotted path, value, allowed values
- `topology.py`: checks across the keys of processes, replicas, engines, restarts and fault injection
- `trust.py`: decides whether a configuration may call functions: the user's own and root's may, others need
  `--trust`
- `views.py`: checks across the keys of the number and sizes of views: `data.views`, `data.progressive`
"""
