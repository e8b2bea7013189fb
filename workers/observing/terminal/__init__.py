"""What a person at a terminal sees of a run, and what a log keeps of it. Imports nothing: the command line is quick."""
