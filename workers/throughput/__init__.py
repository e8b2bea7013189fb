"""How fast a pipeline is, by a model of its protocol: images a second, shares of time, and what limits them.

- `records.py`: what the model is given, and what it answers
"""
