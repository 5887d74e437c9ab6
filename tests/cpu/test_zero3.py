"""ZeRO-3 on CPU: what two ranks gather is what was put in. Real processes, real gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

# The heap is filled with a pattern, so that memory which is read before it was written to cannot look right by luck.
ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MALLOC_PERTURB_": "128"}
RANK = """
import os
import deepspeed, torch
from openrlhf_maxk.upstream import seams
seams.apply(seams.active(cpu=True))
deepspeed.init_distributed(dist_backend="gloo")
config = {"train_batch_size": 2, "zero_optimization": {"stage": 3}}
with deepspeed.zero.Init(dtype=torch.float32, config_dict_or_path=config):
    layers = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(4))
parameters = list(layers.parameters())
wrong = 0
for round in range(200):
    for written in (True, False):
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if written else None):
            for i, parameter in enumerate(parameters):
                if written and deepspeed.comm.get_rank() == 0:
                    parameter.data.fill_(round + i)
                elif not written:
                    wrong += int((parameter.data != round + i).sum())
print("wrong:", wrong, flush=True)
torch.distributed.barrier()
os._exit(0)  # gloo's threads may end after the interpreter, which is no matter of this test
"""


def test_parameters_gathered_together_are_complete_when_they_are_used():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK],
            env=os.environ | ENVIRONMENT | {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    printed = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    assert [text.rpartition("wrong: ")[2] for text in printed] == ["0\n", "0\n"]
