"""`onward plan`: where to cut a network, and how to use N devices, so that a run makes the most images a second.

- `counted_ends.py`: what follows the last unit of a stage, counted without computing it: noise, head, loss, optimizer
- `counted_units.py`: one unit of the backbone, counted without computing it
- `counting.py`: every unit of a network, and every end that a stage can have, counted; those that are alike once
- `costs.py`: what the parts of a network cost, as records, and the time of any stage, which follows from them
- `device_table.py`: how fast devices and links are, by their makers, and the shares of it that training reaches
- `estimating.py`: what the parts of a network cost on a device that nobody has measured: from operations and bytes
- `cost_cache.py`: keeps what was measured, in `~/.cache/onward/costs`
- `measuring.py`: what the parts of a run cost on this machine, timed in a minute
- `measuring_units.py`: units, and what follows the last unit of a stage, timed one after the other
- `timed_series.py`: as many steps as there is time for, and what follows for a step of the whole batch
- `timed_steps.py`: steps of a real stage, whose time is divided among its parts
- `measuring_pair.py`: links and sums of gradients, timed between two processes
- `pair_main.py`: one of these processes
- `measuring_feed.py`: how fast the feed makes batches
- `finest.py`: a run cut after every unit, as which its parts are counted
- `kernel_calls.py`: the calls of kernels of a piece of a step, each with what it computes, reads and writes
- `constraints.py`: what a plan may do: devices, hosts, numbers of stages and replicas, cuts
- `traffic.py`: what the links of a stage take of its processes, of the ways and of the hosts' network cards
- `objective.py`: what a plan is, and what it is worth
- `process_tables.py`: the time of every process that a plan could have, as far as its memory is known
- `prefixes.py`: bounds of the first stages of all plans, by dynamic programming
- `search.py`: the best plan for every number of devices
"""
