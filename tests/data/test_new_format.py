"""A format is one file in `readers` and one member of `Format`."""

import json
import subprocess
import sys

import torch

import made_scenes as made
from commands import TINY

READER = '''
import csv

import torch

from lumifield.data import image_files
from lumifield.data.capture import CaptureFiles
from lumifield.data.scene import Frame, Scene
from lumifield.geometry.cameras import pinhole_cameras


LAYOUT = "poses.csv"


def matches(folder):
    """Whether there is a file of poses."""
    return (folder / LAYOUT).is_file()


def open_files(source):
    """One line per image: split, file name, focal length, and the 3x4 pose."""
    with (source.data / "poses.csv").open() as file:
        lines = list(csv.reader(file))

    def locate(split):
        rows = [line for line in lines if line[0] == split]
        files = image_files.read_headers([source.data / row[1] for row in rows])
        c2w = torch.tensor([[float(value) for value in row[3:]] for row in rows]).reshape(-1, 3, 4)
        scene = Scene(
            cameras=pinhole_cameras(c2w, float(rows[0][2]), files.sizes[0]),
            names=tuple(row[1] for row in rows),
            near=torch.full((len(rows),), 1.0),
            far=torch.full((len(rows),), 6.0),
            box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
            frame=Frame.identity(),
            background=image_files.resolve_background(files, source.background),
        )
        return scene, files

    return CaptureFiles(tuple(dict.fromkeys(line[0] for line in lines)), locate, "the data's own poses.csv")
'''

# In a process of its own, as the union is extended before other modules read it.
PROGRAM = """
import sys
from typing import Literal, get_args

from lumifield import data
from lumifield.data import readers

readers.__path__.append(sys.argv.pop(1))
data.Format = Literal[(*get_args(data.Format), "poses")]

from lumifield.cli.main import main

main(sys.argv[1:])
"""


def test_a_new_format_is_one_file_and_one_union_member(tmp_path):
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers/poses.py").write_text(READER)
    scene, run, lines = tmp_path / "scene", tmp_path / "run", []
    for index, c2w in enumerate(made.ring(6)):
        made.save(scene / f"{index}.png", made.image(index, (8, 6), 3))
        pose = ",".join(map(str, torch.as_tensor(c2w)[:3].flatten().tolist()))
        lines.append(f"{'test' if index == 5 else 'train'},{index}.png,9.0,{pose}\n")
    (scene / "poses.csv").write_text("".join(lines))

    def call(*arguments):
        command = [sys.executable, "-c", PROGRAM, tmp_path / "readers", *arguments]
        subprocess.run(list(map(str, command)), check=True)

    call("train", "instant", "--data", scene, "--out", run, *TINY, "--device", "cpu")
    call("eval", run)
    metrics = json.loads((run / "eval/test/metrics.json").read_text())
    assert [view["name"] for view in metrics["per_image"]] == ["5.png"]
    assert metrics["protocol"]["split_rule"] == "the data's own poses.csv"
