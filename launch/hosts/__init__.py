"""`onward train --hosts`: the processes of a run on several hosts, for those who have nothing but ssh.

- `connection.py`: one host: its ssh connection, what it answers, what it prints, and why it does not
- `host_list.py`: what `--hosts` names, and which ranks run on which of them
- `host_main.py`: what runs on every host: starts its ranks, passes on what they print, and ends them
- `launcher.py`: the run from one terminal: connects to all hosts, starts the ranks, waits for their end
- `messages.py`: what the two sides say to each other, as JSON
- `start_plan.py`: `onward check --hosts`: where each process of a run would run, and the commands to give
"""
