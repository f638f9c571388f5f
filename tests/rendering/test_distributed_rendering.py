"""Several processes together score and film what one does."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lumifield.cli import main
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training
from scenes import INSTANT, written

pytestmark = pytest.mark.slow

CALLS = (
    "eval {run}",
    "eval {run} --split val --data {single}",
    "render {run} --path test --size 16 12 --depth-format npy --out {run}/film",
    "render {run} --path orbit --num-frames 1 --channels rgb,depth,normal --out {run}/film.gif",
    "render {run} --view-index 1 --out {run}/view",
    "localize synthesize {run} --size 8 6",
)
PROGRAM = """
import sys
from lumifield.cli import main
from lumifield.runtime.distributed import leave

for call in sys.argv[1:]:
    main.main(call.split())
leave()
"""


def together(*calls: str) -> str:
    """What two processes print that run the same commands together."""
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    given = [*starter, sys.executable, "-c", PROGRAM, *calls]
    done = subprocess.run(given, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for the seconds that rendering took."""
    return {str(path.relative_to(folder)): timeless(path) for path in folder.rglob("*") if path.is_file()}


def timeless(path: Path) -> bytes:
    """The content of a file without seconds and rays per second."""
    if path.name == "report.html":
        return str(path.read_text().count("data:image")).encode()
    if path.name == "metrics.csv":
        with path.open(encoding="utf-8", newline="") as file:
            return json.dumps([row | {"seconds": ""} for row in csv.DictReader(file)]).encode()
    if path.name != "metrics.json":
        return path.read_bytes()
    metrics = json.loads(path.read_text())
    metrics["per_image"] = [{**image, "seconds": 0.0} for image in metrics["per_image"]]
    return json.dumps(metrics | {"render_seconds": 0.0, "render_rays_per_second": 0.0}).encode()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of two equal runs: one was used by one process, the other by two; and what both printed."""
    root = tmp_path_factory.mktemp("shared")
    source, single = written(root / "ball", held_out=3), written(root / "single", held_out=1)
    run_training(TrainingJob(INSTANT, source, Train(steps=20), root / "two"))
    for step in ("density {run} --num-cells 500 --density-threshold 1e9", "select {run} --num-views 5"):
        main.main(["localize", *step.format(run=root / "two").split()])
    shutil.copytree(root / "two", root / "one")
    calls = {name: [call.format(run=root / name, single=single.data) for call in CALLS] for name in ("one", "two")}
    for call in calls["one"]:
        main.main(call.split())
    return root / "one", root / "two", together(*calls["two"])


def test_two_processes_leave_the_files_that_one_leaves(runs):
    one, two = files(runs[0]), files(runs[1])
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert {"eval/test/002_error.png", "eval/val/metrics.json", "film/0002.png", "film_depth/0002.npy"} <= one.keys()
    assert len([name for name in one if name.startswith("localize/sequence/seq-99/")]) == 15


def test_the_first_process_speaks_for_all(runs):
    said = runs[2]
    assert [said.count(word) for word in ("test, 3 views", "val, 1 views", "film.gif", "s, psnr")] == [1, 1, 1, 1]
