"""`onward plan`: where to cut a network, and how to use N devices, so that a run makes the most images a second.

- `counted_ends.py`: what follows the last unit of a stage, counted without computing it: noise, head, loss, optimizer
- `counted_units.py`: one unit of the backbone, counted without computing it
- `counting.py`: every unit of a network, and every end that a stage can have, counted; those that are alike once
- `costs.py`: what the parts of a network cost, as records, and the time of any stage, which follows from them
- `device_table.py`: how fast devices and links are, by their makers, and the shares of it that training reaches
- `estimating.py`: what the parts of a network cost on a device that nobody has measured: from operations and bytes
- `finest.py`: a run cut after every unit, as which its parts are counted
- `kernel_calls.py`: the calls of kernels of a piece of a step, each with what it computes, reads and writes
"""
