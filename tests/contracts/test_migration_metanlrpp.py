"""docs/migration/metanlrpp.md: each option changes the output."""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from lumifield.cli import main
from lumifield.synthetic import FlowPairs, ObjectCaptures, synthesize_data
from surface_options import NETWORKS, PRETRAINING, SURFACE, TRAINING

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Captures, pairs of images, and a run."""
    folder = tmp_path_factory.mktemp("places")
    small = {"image_width": 16, "num_train": 4, "num_val": 1, "num_test": 1, "samples_per_pixel": 1}
    synthesize_data(ObjectCaptures(**small), folder / "capture")
    synthesize_data(ObjectCaptures(**small, seed=1), folder / "other")
    synthesize_data(ObjectCaptures(**small, num_objects=2), folder / "captures")
    synthesize_data(FlowPairs(num_pairs=2, image_width=32), folder / "pairs")
    synthesize_data(FlowPairs(num_pairs=2, image_width=32, seed=1), folder / "others")
    found = {name: folder / name for name in ("capture", "other", "captures", "pairs", "others", "surface")}
    called("train nlr --data {capture} --out {surface} --seed 7", SURFACE, **found)
    return found


def called(*parts, **places):
    main.main([word.format(**places) for part in parts for word in part.split()])


def left(out, *parts, **places):
    """The weights that a command leaves."""
    called(*parts, f"--out {out}", **places)
    return load_file(out / "weights.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def usual(places, tmp_path_factory):
    """What a command leaves without the change, computed once."""

    @cache
    def weights(*parts):
        return left(tmp_path_factory.mktemp("usual") / "run", *parts, **places)

    return weights


@pytest.mark.parametrize("flag", TRAINING)
def test_an_option_of_train_changes_the_run(flag, places, usual, tmp_path):
    common, change = TRAINING[flag]
    plain = "train nlr --data {capture}", SURFACE, common
    assert not same(usual(*plain), left(tmp_path / "after", *plain, change, **places))


def test_the_same_options_leave_the_same(places, tmp_path):
    plain = "train nlr --data {capture}", SURFACE
    assert same(*(left(tmp_path / name, *plain, **places) for name in "ab"))


@pytest.mark.parametrize("flag", ["", *PRETRAINING])
def test_an_option_of_pretrain_features_changes_the_weights(flag, places, usual, tmp_path):
    plain = "pretrain-features --data {pairs} --batch-size 1 --crop-size 16", NETWORKS
    after = left(tmp_path / "after", *plain, PRETRAINING.get(flag, ""), **places)
    assert same(usual(*plain), after) == (flag == "")


def test_parts_of_a_start_move_at_rates_of_their_own(places, tmp_path):
    plain = "meta-train nlr --data {captures} --hold-out none --num-validation-tasks 0 --inner.steps 2 --outer.kind sgd"
    method = SURFACE.replace("--validate-every 0 --num-validation-views 0", "")
    rates = "--inner.optimizer.kind adam --inner.optimizer.lr 1e-3 --outer.lr 0.5"
    one, own = (
        left(tmp_path / str(len(more)), plain, method, rates, more, **places) for more in ("", "--use-method-rates")
    )
    assert any(not torch.equal(one[name], own[name]) for name in one if name.startswith("sdf."))
