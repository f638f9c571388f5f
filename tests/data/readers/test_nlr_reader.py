import numpy as np
import pytest
import torch

import made_objects as objects
import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.errors import DataError


def read(root):
    return data.read_scene(Source(root), "train")


def test_images_of_unequal_size_in_the_sphere_of_their_hull(tmp_path):
    scene = read(objects.nlr(tmp_path))
    rows = [row for row in range(10) if row % 8]
    assert [scene.size(index) for index in range(len(scene))] == [(48, 36) if row % 2 else (24, 18) for row in rows]
    world = objects.around(10)
    torch.testing.assert_close(scene.frame.poses_to_world(scene.cameras.c2w), world.c2w[rows].float())
    wide = torch.tensor([2.0 if row % 2 else 1.0 for row in rows])[:, None]
    torch.testing.assert_close(scene.cameras.focal, world.focal[rows] * wide)
    torch.testing.assert_close(scene.cameras.center, world.center[rows] * wide)
    middle = scene.frame.to_world(torch.zeros(3)) - torch.tensor(objects.CENTER)
    assert float(middle.norm()) < 0.15 * objects.RADIUS
    assert 1.0 < scene.frame.scale / (objects.BALL * objects.RADIUS) < 1.7
    assert scene.has_object_mask
    assert np.array_equal(scene.object_mask(0).numpy(), objects.ball(objects.around(10, (48, 36)), 1) == 255)


def test_published_splits_of_22_photographs(tmp_path):
    source = Source(objects.nlr(tmp_path, n=22))
    assert data.open_capture(source).splits == ("train", "test")
    assert data.open_capture(source).cameras("train").names == tuple(f"{row:02d}_rgb.png" for row in range(16, 22))
    assert len(data.open_capture(source).cameras("test")) == 16


def test_cameras_may_be_listed_by_the_name_of_the_file(tmp_path):
    objects.nlr(tmp_path)
    first = data.open_capture(Source(tmp_path)).cameras("train").cameras.c2w
    objects.recalibrated(tmp_path, lambda content: {f"{name}_rgb": camera for name, camera in content.items()})
    assert torch.equal(data.open_capture(Source(tmp_path)).cameras("train").cameras.c2w, first)


def test_without_mattes_nothing_is_cut_out(tmp_path):
    objects.nlr(tmp_path)
    for path in (tmp_path / "mattes").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"00_mask\.png: matte: found missing"):
        read(tmp_path)
    (tmp_path / "mattes").rmdir()
    assert (read(tmp_path).has_object_mask, read(tmp_path).unbounded) == (False, True)


def test_files_that_say_no_cameras(tmp_path):
    path = objects.nlr(tmp_path) / "calib_export.yaml"
    objects.recalibrated(tmp_path, lambda content: content | {"03": None})
    with pytest.raises(DataError, match=r"yaml: camera 03: found missing"):
        read(tmp_path)
    for text, found in (("a: [", r"no YAML \(while parsing a flow node.*\)"), ("3", "no table")):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"calib_export\.yaml: content: found {found}"):
            read(tmp_path)
    path.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(DataError, match=r"no YAML \(could not determine a constructor for the tag .*python/object/app"):
        read(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"yaml: file: found missing"):
        data.read_scene(Source(tmp_path, format="nlr"), "train")


@pytest.mark.parametrize(
    "matrix", [None, [[1, 2], [3, 4]], np.diag([0.0, 1, 1]).tolist(), [[9, 1, 4], [0, 9, 3], [0, 0, 1]], "none"]
)
def test_lenses_of_another_form(tmp_path, matrix):
    objects.nlr(tmp_path)
    lens = {"intrinsics": {"camera_matrix": matrix}}
    objects.recalibrated(tmp_path, lambda content: content | {"03": content["03"] | lens})
    with pytest.raises(DataError, match=r"camera_matrix of 03: found of another form"):
        read(tmp_path)


def test_poses_that_are_none(tmp_path):
    objects.nlr(tmp_path)
    objects.recalibrated(tmp_path, lambda content: content | {"03": content["03"] | {"extrinsics": 2}})
    with pytest.raises(DataError, match=r"extrinsics of 03: found shape \(\)"):
        read(tmp_path)


def test_a_folder_without_photographs(tmp_path):
    made.write(tmp_path / "calib_export.yaml", {})
    with pytest.raises(DataError, match="rgb: folder: found missing or empty"):
        read(tmp_path)
