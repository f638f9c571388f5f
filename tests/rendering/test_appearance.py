"""What images wear: given, mean, nearest, or fitted to left halves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import lumifield.rendering.render
from analytic import CPU, Ball, around, photograph, run_of, scene_of
from lumifield import data
from lumifield.data.scene import Images, Scene
from lumifield.errors import DataError
from lumifield.evaluation import appearance_fit, evaluate
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered, Traits
from lumifield.rendering import appearance
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.image_io import to_uint8
from scenes import NERF_W, ball, written


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(evaluate, "load_lpips", lambda device, download: (None, "offline"))


class Tinted(Method):
    """A ball in the light of each image: its colors are those of `Ball` plus the embedding's three numbers."""

    traits = Traits(("transient", "uncertainty"), num_appearance_dims=3)

    def __init__(self, looks: torch.Tensor) -> None:
        super().__init__()
        self.looks = torch.nn.Parameter(looks)
        self.ball = Ball()

    @property
    def appearance_embeddings(self) -> torch.Tensor:
        return self.looks

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        look = self.looks.mean(0) if context.appearance_embedding is None else context.appearance_embedding
        seen = self.ball(rays, context)
        own = {
            "transient": (1.5 * (LOOKS[0] - look)).expand(len(rays), 3),
            "uncertainty": 3 * (LOOKS[0] - look)[0].expand(len(rays)),
        }
        return replace(seen, rgb=seen.rgb + look, channels={name: own[name] for name in context.channels})

    def density(self, points: torch.Tensor) -> torch.Tensor:
        return self.ball.density(points)

    def losses(self, rendered, batch):
        return {"rgb": (rendered.rgb - batch.rgb).square().mean()}


LOOKS = torch.tensor([[-0.4, -0.4, -0.4], [-0.5, -0.4, -0.4], [-0.4, -0.4, -0.5]])
TRUE = torch.tensor([-0.1, -0.05, -0.06])


def tinted(scene: Scene, tint: torch.Tensor, *, right: torch.Tensor | None = None) -> Scene:
    """Images of the ball in a light, 8 bit; the right halves in another one."""
    pixels = []
    for row in range(len(scene)):
        rgb = render_view(Ball(), scene, row, device=CPU).rgb + tint
        if right is not None:
            middle = rgb.shape[1] // 2
            rgb[:, middle:] += right - tint
        pixels.append(to_uint8(rgb).reshape(-1, 3))
    offsets = torch.tensor([0, *(len(each) for each in pixels)]).cumsum(0)
    return replace(scene, images=Images(torch.cat(pixels), offsets))


@pytest.fixture
def run(tmp_path) -> LoadedRun:
    scene = scene_of(around(3, (20, 14)))
    return run_of(tmp_path / "run", Tinted(LOOKS.clone()), {"train": scene, "test": scene}, data.Source(tmp_path))


@pytest.fixture
def photographed(run, monkeypatch):
    """The run's test images are those of a light."""
    scene = tinted(run.scenes["test"], TRUE)
    monkeypatch.setattr(evaluate, "load_ground_truth", lambda run, split, rows: scene)
    return scene


def test_a_light_is_found_from_the_left_half_and_nothing_else_moves(run, photographed):
    before = run.method.looks.detach().clone()
    found = appearance_fit.fit_appearance(run, photographed, 1)
    torch.testing.assert_close(found, TRUE, atol=0.02, rtol=0)
    assert torch.equal(run.method.looks, before)
    # The right half is not looked at.
    other = tinted(run.scenes["test"], TRUE, right=TRUE - 0.3)
    assert torch.equal(appearance_fit.fit_appearance(run, other, 1), found)


def test_an_affine_color_is_that_of_least_squares_on_the_left_half(run):
    scene = tinted(run.scenes["test"], TRUE, right=torch.zeros(3))
    rgb = render_view(Ball(), scene, 0, device=CPU).rgb
    found = appearance_fit.fit_affine_colors(rgb, scene, 0)
    left, truth = found[:, :10].reshape(-1, 3), scene.ground_truth(0)[:, :10].reshape(-1, 3)
    colors = np.concatenate([rgb[:, :10].reshape(-1, 3).numpy(), np.ones((140, 1))], 1)
    expected = colors @ np.linalg.pinv(colors) @ truth.numpy()
    np.testing.assert_allclose(left.numpy(), expected.clip(0, 1), atol=1e-4)
    # One color everywhere leaves the curve open; the least is taken.
    flat = appearance_fit.fit_affine_colors(torch.full_like(rgb, 0.5), scene, 0)
    torch.testing.assert_close(flat[0, 0], truth.mean(0), atol=1e-4, rtol=0)


def test_a_photographs_look_is_found_by_its_name(run):
    run = replace(run, scenes={"train": replace(run.scenes["train"], names=("./a/x.png", "./a/y.png", "./b/x.png"))})
    for name in ("./a/y.png", "y.png", "y"):
        assert torch.equal(appearance.embedding_of(run, name), LOOKS[1])
    torch.testing.assert_close(appearance.embedding_of(run, "mean"), LOOKS.mean(0))
    with pytest.raises(DataError, match=r"appearance 'z': found no training image"):
        appearance.embedding_of(run, "z")
    with pytest.raises(DataError, match=r"appearance 'x': found the name of several images"):
        appearance.embedding_of(run, "x")
    plain = replace(run, method=Ball())
    with pytest.raises(DataError, match="method: found no appearance embeddings"):
        appearance.embedding_of(plain, "y")


def test_the_nearest_photograph_is_that_of_the_nearest_camera(run):
    turned = replace(run.scenes["test"], cameras=run.scenes["test"].cameras[[2, 0, 1]])
    for row, expected in enumerate((2, 0, 1)):
        assert torch.equal(appearance_fit.embedding_for(run, turned, row, "nearest"), LOOKS[expected])


def test_an_appearance_leads_from_one_photograph_to_the_next(run):
    found = appearance.interpolate_embeddings(run, ("view_0", "view_1", "view_2"), 5)
    torch.testing.assert_close(found[::2], LOOKS)
    torch.testing.assert_close(found[1], (LOOKS[0] + LOOKS[1]) / 2)
    assert torch.equal(appearance.interpolate_embeddings(run, ("view_1",), 2), LOOKS[[1, 1]])
    assert appearance.interpolate_embeddings(run, (), 5) is None


def test_right_halves_of_fitted_views_are_scored(run, photographed):
    metrics = evaluate.evaluate(run)
    assert metrics.psnr > 35
    assert metrics.protocol["columns"] == "the right half, from column W // 2 on"
    assert metrics.protocol["embedding_fit"].startswith("to the left half of each image")
    assert json.loads((run.folder / "eval" / "test" / "metrics.json").read_text()) == metrics.to_json()
    mean = evaluate.evaluate(run, scoring=evaluate.Scoring.of(run, "mean"))
    assert mean.psnr < 20
    assert mean.protocol["columns"] == "all"
    assert (run.folder / "eval" / "test_mean" / "metrics.json").is_file()


def test_only_the_right_half_moves_the_score(run, monkeypatch):
    for right, least, most in ((TRUE, 35, 100), (TRUE - 0.3, 0, 20)):
        scene = tinted(run.scenes["test"], TRUE, right=right)
        monkeypatch.setattr(evaluate, "load_ground_truth", lambda run, split, rows, scene=scene: scene)
        assert least < evaluate.evaluate(run, save_images=False).psnr < most


def test_every_appearance_has_its_words_and_its_folder(run, photographed):
    said = {
        "affine": ("test_affine", "colors A c + b are fitted"),
        "nearest": ("test_nearest", "nearest training view"),
        "view_1": ("test_view_1", "that of training image view_1"),
    }
    for name, (folder, words) in said.items():
        metrics = evaluate.evaluate(run, scoring=evaluate.Scoring.of(run, name), save_images=False)
        assert words in metrics.protocol["embedding_fit"]
        assert (run.folder / "eval" / folder / "metrics.json").is_file()


def test_a_method_without_embeddings_may_wear_a_color_curve(run, photographed):
    plain = replace(run, method=Ball())
    whole = evaluate.evaluate(plain, save_images=False)
    assert whole.protocol["embedding_fit"] == "none, the method has no embeddings"
    right = evaluate.evaluate(plain, scoring=evaluate.Scoring.of(plain, right_half=True), save_images=False)
    assert right.protocol["columns"].startswith("the right half")
    assert (run.folder / "eval" / "test_right" / "metrics.json").is_file()
    curved = evaluate.evaluate(plain, scoring=evaluate.Scoring.of(plain, "affine"), save_images=False)
    assert curved.psnr > right.psnr + 5
    assert curved.protocol["embedding_fit"].startswith("none; colors A c + b")
    with pytest.raises(DataError, match="method: found no appearance embeddings"):
        evaluate.evaluate(plain, scoring=evaluate.Scoring.of(plain, "fitted"))


def test_masks_of_a_folder_say_what_is_scored(tmp_path):
    scene = scene_of(around(2, (12, 8)))
    (tmp_path / "data").mkdir()
    (tmp_path / "masks").mkdir()
    source = photograph(tmp_path / "data", scene, "test")
    for index in range(2):
        mask = np.zeros((8, 12), np.uint8)
        mask[:, : 3 * (index + 1)] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"test_view_{index}.png")
    run = run_of(tmp_path / "run", Ball(), {"train": scene}, replace(source, masks=tmp_path / "masks"))
    read = data.read_scene(run.source, "test")
    assert [int(read.valid_mask(row).sum()) for row in range(2)] == [24, 48]
    metrics = evaluate.evaluate(run)
    assert metrics.psnr_masked_image is not None
    assert metrics.protocol["mask"] == "pixels outside the masks are not scored"
    assert (run.folder / "eval" / "test_masks" / "metrics.json").is_file()
    (tmp_path / "masks" / "test_view_1.png").unlink()
    with pytest.raises(DataError, match=r"test_view_1\.png: mask: found missing"):
        data.read_scene(run.source, "test")


def test_frames_wear_an_appearance_and_show_the_methods_channels(run, tmp_path):
    look = lumifield.rendering.render.RenderOptions(
        ("rgb", "transient", "uncertainty"), appearance=("view_0", "view_1")
    )
    lumifield.rendering.render.render_camera_path(run, around(3, (20, 14)), tmp_path / "film", options=look)
    frames = [np.asarray(Image.open(tmp_path / "film" / f"000{i}.png")).astype(int) for i in range(3)]
    tint = [frame[7, 30].tolist() for frame in frames]
    assert tint == [[0, 0, 0], [19, 0, 0], [38, 0, 0]]
    assert [bool(frame[:, 40:].any()) for frame in frames] == [False, True, True]
    deep = lumifield.rendering.render.RenderOptions(("depth", *look.channels), appearance=look.appearance)
    lumifield.rendering.render.render_camera_path(run, around(3, (20, 14)), tmp_path / "deep", options=deep)
    for index, frame in enumerate(frames):
        spooled = np.asarray(Image.open(tmp_path / "deep" / f"000{index}.png")).astype(int)
        assert np.abs(spooled[:, 20:] - frame).max() <= 1


def test_a_view_in_a_photographs_appearance_shows_all_there_is(run, tmp_path):
    look = lumifield.rendering.render.RenderOptions(appearance=("view_1",))
    still = lumifield.rendering.render.render_split_view(run, "test", 0, tmp_path / "view", options=look)
    names = [file.stem for file in still.files]
    assert names == [f"000_{name}" for name in ("rgb", "depth", "normal", "opacity", "transient", "uncertainty")]


def test_channels_of_other_methods_are_one_sentence(run, tmp_path):
    plain = replace(run, method=Ball())
    expected = "channel: found 'static', which this method does not have"
    with pytest.raises(DataError, match=expected):
        lumifield.rendering.render.render_camera_path(
            plain, around(1), tmp_path / "film", options=lumifield.rendering.render.RenderOptions(("static",))
        )
    with pytest.raises(DataError, match="method: found no appearance embeddings"):
        lumifield.rendering.render.render_camera_path(
            plain,
            around(1),
            tmp_path / "film",
            options=lumifield.rendering.render.RenderOptions(appearance=("view_0",)),
        )


def test_nerf_w_is_fitted_with_its_networks_held(tmp_path, monkeypatch):
    source = written(tmp_path)
    torch.manual_seed(0)
    scene = ball(8)
    method = NERF_W.build(scene)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    monkeypatch.setattr(appearance_fit, "FIT_STEPS", 5)
    monkeypatch.setattr(appearance_fit, "FIT_RAYS", 32)
    run = run_of(tmp_path / "run", method, {"train": scene}, source)
    found = appearance_fit.fit_appearance(run, data.read_scene(source, "test"), 0)
    assert not torch.equal(found[:4], method.appearance_embeddings[:, :4].mean(0))
    # What passed by has no say.
    torch.testing.assert_close(found[4:], method.appearance_embeddings[:, 4:].mean(0))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
