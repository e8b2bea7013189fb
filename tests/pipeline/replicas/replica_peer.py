"""One process of those that play the replicas of a stage: it reads calls from its input and runs `replica_cases`."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.launch.plan import memory_cases
from tests.pipeline.replicas import recompute_cases, replica_cases
from workers.topology.replica_group import join_replica_group, leave_replica_group

ANSWER_SECONDS = 120.0


def answer(call: dict[str, Any]) -> dict[str, Any]:
    place = torch.device("cpu")
    try:
        team = join_replica_group(call["store"], call["name"], call["rank"], call["size"], place, ANSWER_SECONDS)
        cases = {**vars(replica_cases), **vars(recompute_cases), **vars(memory_cases)}
        tensors = cases[call["case"]](team, **call["settings"])
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        return {"error": type(error).__name__, "message": str(error)}
    finally:
        leave_replica_group()
    path = Path(call["folder"]) / f"{call['name']}.{call['rank']}"
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)
    return {"file": str(path)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
