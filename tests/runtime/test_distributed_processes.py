import subprocess
import sys

import pytest

from lumifield.runtime import distributed

pytestmark = pytest.mark.slow

PROGRAM = """
import os, torch
from lumifield.runtime import distributed
from lumifield.runtime import precision
precision.measure_on_cpu = lambda: os.environ["RANK"] == "0"
rank, world = distributed.join()
said = distributed.gather({"rank": rank, "name": "é" * (rank * 5), "value": [0.1, None]})
assert distributed.join() == (rank, world)
faster = precision.bf16_is_faster(torch.device("cpu"))
heard = [(each["rank"], len(each["name"]), each["value"]) for each in said]
os.write(1, f"{world}: {heard} bf16 {faster}\\n".encode())  # in one piece: the others write to the same pipe
"""


def test_one_process_hears_itself():
    assert distributed.join() == (0, 1)
    assert distributed.gather({"a": (1, 2)}) == [{"a": (1, 2)}]


def test_every_process_hears_all_in_the_order_of_the_ranks_and_follows_the_first(monkeypatch):
    monkeypatch.delenv("LUMIFIELD_BF16", raising=False)
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "--no-python"]
    given = [*starter, sys.executable, "-c", PROGRAM]
    done = subprocess.run(given, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    heard = "3: [(0, 0, [0.1, None]), (1, 5, [0.1, None]), (2, 10, [0.1, None])] bf16 True"
    assert done.stdout.splitlines() == [heard] * 3
