"""A process that asks how many GPUs there are, as modules of users do when they are imported, and then starts others.

Prints whether a forked process and a new interpreter could use CUDA.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing

import torch

from workers.determinism.child import Note, answer_task, run_in_child, run_in_interpreter


def can_use_cuda() -> bool:
    """Whether CUDA may be initialised in this process; that there is a GPU is not needed."""
    return not torch.cuda._is_in_bad_fork()


def main() -> None:
    torch.cuda.is_available()
    with closing(Note()) as note:
        started = run_in_interpreter("tests.workers.determinism.cuda_asked_main", {}, note, 100)
        print(json.dumps([run_in_child(can_use_cuda, 100).result, started.result, note.read()]))


def answer(task: object, note: Note) -> bool:
    note.write("here")
    return can_use_cuda()


if __name__ == "__main__":
    answer_task(answer) if len(sys.argv) > 1 else main()
