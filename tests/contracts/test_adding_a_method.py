"""A method is added by one file and one member of the union of settings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lumifield
from scenes import written

FILE = '''
from __future__ import annotations

from dataclasses import dataclass, field

from lumifield.optim import Optimizer, Schedule


@dataclass(frozen=True)
class PlainGrid:
    """Density and color on a dense grid, summed along rays."""

    resolution: int = 16
    """Resolution of the grid."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=0.1))
    """Optimizer."""
    schedule: Schedule = field(default_factory=Schedule)
    """Learning-rate schedule."""

    def build(self, scene):
        import torch
        from torch.nn import functional as F

        from lumifield.geometry.rays import points_on_rays
        from lumifield.methods.base import Method
        from lumifield.volume.compositing import composite, interval_lengths, weights_from_density
        from lumifield.volume.sampling import linspace_depths

        class PlainGridMethod(Method):
            def __init__(self, settings):
                super().__init__()
                self.settings = settings
                self.register_buffer("box", scene.box.clone())
                self.grid = torch.nn.Parameter(torch.zeros(1, 4, *[settings.resolution] * 3))

            def query(self, points):
                unit = (points.reshape(-1, 3) - self.box[0]) / (self.box[1] - self.box[0])
                found = F.grid_sample(self.grid, (2 * unit - 1).view(1, -1, 1, 1, 3), align_corners=True)
                found = found.view(4, -1).T.view(*points.shape[:-1], 4)
                return F.softplus(found[..., 0]), torch.sigmoid(found[..., 1:])

            def forward(self, rays, context):
                z = linspace_depths(rays.near, rays.far, 32)
                density, rgb = self.query(points_on_rays(rays, z))
                weights = weights_from_density(density, interval_lengths(z, rays.directions, rays.far))
                return composite(weights, rgb, z, rays.far, context.background)

            def losses(self, rendered, batch):
                return {"rgb": F.mse_loss(rendered.rgb, batch.rgb)}

            def density(self, points):
                return self.query(points)[0].detach()

            def colors(self, points, viewdirs):
                return self.query(points)[1].detach()

            def rays_per_step(self):
                return 256

        return PlainGridMethod(self)
'''


def test_a_method_is_one_file_and_one_union_member(tmp_path):
    package = tmp_path / "src" / "lumifield"
    shutil.copytree(
        Path(lumifield.__file__).parent, package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    (package / "methods" / "plain_grid.py").write_text(FILE)
    union = package / "methods" / "__init__.py"
    text = union.read_text()
    assert text.count("Settings = Instant | ") == 1
    text = text.replace("Settings = Instant | ", "Settings = PlainGrid | Instant | ")
    union.write_text(
        text.replace("Settings = ", "from lumifield.methods.plain_grid import PlainGrid\n\nSettings = ", 1)
    )
    written(tmp_path / "ball")

    def run(command: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "CUDA_VISIBLE_DEVICES": ""}
        words = [sys.executable, "-c", "from lumifield.cli.main import main; main()", *command.split()]
        return subprocess.run(
            words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    assert "--resolution" in run("train plain-grid --help")
    run("train plain-grid --resolution 12 --data ball --steps 60 --device cpu --out run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["method"]["kind"] == "plain-grid"
    run("train plain-grid --resolution 12 --data ball --steps 70 --device cpu --out run --resume")
    run("eval run")
    assert json.loads((tmp_path / "run" / "eval" / "test" / "metrics.json").read_text())["psnr"] > 15
    run("export volume run --resolution 8 --out ball.npz")
    run("export mesh run --resolution 16 --density-threshold 1 --out ball.ply")
    assert (tmp_path / "ball.npz").is_file()
    assert (tmp_path / "ball.ply").is_file()
