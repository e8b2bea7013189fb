"""How fast a pipeline is, by a model of its protocol: images a second, shares of time, and what limits them.

- `records.py`: what the model is given, and what it answers
- `modelled.py`: the pipeline that a configuration describes, from times that were estimated, or measured in a run
- `simulation.py`: processes that wait for time, counts and messages, and the cards of hosts, event by event
- `model.py`: images a second, shares and what limits them, by the protocol of feed, links, stages and replicas
"""
