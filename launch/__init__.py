"""How it is started: command line, torchrun entry, placement and the run directory."""
