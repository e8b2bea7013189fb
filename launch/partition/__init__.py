"""`onward plan`: where to cut a network, and how to use N devices, so that a run makes the most images a second.

- `costs.py`: what the parts of a network cost, as records, and the time of any stage, which follows from them
- `constraints.py`: what a plan may do: devices, hosts, numbers of stages and replicas, cuts
- `traffic.py`: what the links of a stage take of its processes, of the ways and of the hosts' network cards
- `objective.py`: what a plan is, and what it is worth
- `process_tables.py`: the time of every process that a plan could have, as far as its memory is known
- `prefixes.py`: bounds of the first stages of all plans, by dynamic programming
- `search.py`: the best plan for every number of devices
- `planned_config.py`: the configuration of a run as a plan has it
- `memory_bounds.py`: what a stage needs of a device at the least, at once and from its costs
- `memory_fit.py`: whether a device holds a process, by the account of memory, and what has to be computed again
- `memory_shortage.py`: why no plan fits, and what would need less
"""
