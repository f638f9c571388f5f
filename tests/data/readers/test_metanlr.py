import os
import pickle

import numpy as np
import pytest
import torch

import made_objects as objects
import made_scenes as made
from lumifield import data
from lumifield.data import Source, safe_pickle
from lumifield.errors import DataError


def read(root):
    return data.read_scene(Source(root), "train")


def pickled(path, content):
    np.save(path, np.array(content, object))


def test_the_same_capture_as_in_the_layout_of_dtu(tmp_path):
    (tmp_path / "a").mkdir()
    found, expected = read(objects.metanlr(tmp_path / "a")), read(objects.dtu(tmp_path / "b"))
    torch.testing.assert_close(found.cameras.c2w, expected.cameras.c2w)
    torch.testing.assert_close(found.cameras.focal, expected.cameras.focal)
    torch.testing.assert_close(found.cameras.center, expected.cameras.center)
    assert torch.equal(found.images.pixels, expected.images.pixels)
    assert found.frame.scale == pytest.approx(expected.frame.scale)
    assert found.names[0] == "01_rgb.png"


def test_images_that_were_shrunk_since(tmp_path):
    objects.metanlr(tmp_path)
    path = tmp_path / "01_rgb_meta.npy"
    content = safe_pickle.read_dictionary(path)
    pickled(path, content | {"resolution": [48, 36]})
    assert read(tmp_path).cameras.focal[0].tolist() == pytest.approx([objects.FOCAL] * 2)


def test_photographs_without_a_table_or_a_mask(tmp_path):
    objects.metanlr(tmp_path)
    (tmp_path / "01_rgb_meta.npy").unlink()
    (tmp_path / "02_mask.png").unlink()
    scene = read(tmp_path)
    assert scene.names[0] == "02_rgb.png"
    assert bool(scene.object_mask(0).all())
    assert not bool(scene.object_mask(1).all())


def test_without_the_matrix_the_sphere_is_computed(tmp_path):
    (objects.metanlr(tmp_path) / "model_matrix.npy").unlink()
    assert 1.0 < read(tmp_path).frame.scale / (objects.BALL * objects.RADIUS) < 1.7


def test_tables_that_say_no_camera(tmp_path):
    objects.metanlr(tmp_path)
    path = tmp_path / "01_rgb_meta.npy"
    content = safe_pickle.read_dictionary(path)
    for change, message in (
        ({"view": None}, "view: found missing or of another form"),
        ({"resolution": "a"}, "resolution: found missing or of another form"),
        ({"projection": np.eye(4)}, "projection: found none of a pinhole"),
        ({"view": np.zeros((4, 4))}, r"view: found columns that are not orthonormal and right-handed"),
    ):
        pickled(path, content | change)
        with pytest.raises(DataError, match=message):
            read(tmp_path)


class Touch:
    """A pickle of this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def test_a_pickle_with_anything_but_plain_data_is_refused_by_name_and_not_run(tmp_path):
    objects.metanlr(tmp_path)
    pickled(tmp_path / "01_rgb_meta.npy", {"view": Touch(tmp_path / "run")})
    expected = r"01_rgb_meta\.npy: content: found a pickle with posix\.mknod"
    with pytest.raises(DataError, match=expected):
        read(tmp_path)
    assert not (tmp_path / "run").exists()


def test_plain_data_of_every_kind(tmp_path):
    content = {
        "list": [1, 2.5, None, True, "text", (3,)],
        "array": np.arange(6).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "number": np.float32(0.5),
        "bytes": b"\xff",
    }
    pickled(tmp_path / "a.npy", content)
    found = safe_pickle.read_dictionary(tmp_path / "a.npy")
    assert repr(found) == repr(content)
    # As NumPy 1 names its modules.
    older = pickle.dumps({"a": np.arange(3)}, protocol=0).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with (tmp_path / "b.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(older)
    assert repr(safe_pickle.read_dictionary(tmp_path / "b.npy")) == repr({"a": np.arange(3)})


def test_files_that_hold_no_table(tmp_path):
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    pickled(tmp_path / "list.npy", [1])
    (tmp_path / "damaged.npy").write_bytes((tmp_path / "list.npy").read_bytes()[:-3])
    for name, found in (
        ("numbers", r"damaged \(numbers of shape \(3,\)\)"),
        ("list", "a (list|ndarray)"),
        ("damaged", "damaged .*"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.npy: content: found {found}"):
            safe_pickle.read_dictionary(tmp_path / f"{name}.npy")
    with pytest.raises(DataError, match="file: found missing"):
        safe_pickle.read_dictionary(tmp_path / "missing.npy")


def test_a_folder_without_photographs(tmp_path):
    made.write(tmp_path / "a.json", {})
    with pytest.raises(DataError, match=r"images: found missing"):
        data.read_scene(Source(tmp_path, format="metanlr"), "train")
