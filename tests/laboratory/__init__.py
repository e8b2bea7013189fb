"""A laboratory of 2 to 4 hosts on this machine, made of Linux namespaces. Takes root, and the commands ip and unshare.

- `names.py`: how the hosts are called, and what every name resolves to on each of them
- `hosts.py`: makes the hosts, runs commands on them, and takes them down
- `sshd.py`: OpenSSH between them

A host has its own network with its own loopback, its own host name, `/etc/hosts`, processes, shared memory and clone of
the repository (what is written into it stays on that host). Below `Laboratory.folder`, `own/` is another folder on
every host, with `HOME` and `TMPDIR` in it; everything else is shared.
"""
