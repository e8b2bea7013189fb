"""`onward plan`: where to cut a network, and how to use N devices, so that a run makes the most images a second.

- `costs.py`: what the parts of a network cost, as records, and the time of any stage, which follows from them
"""
