from math import e

import pytest
import torch

from lumifield.methods.nlr.blending import INITIAL_COSINE_SHARPNESS, LearnedWeights, angle_weights, normalize_weights

COSINE = torch.tensor([[1.0, 0.9, 0.5], [0.8, 0.9, -0.5], [0.6, 0.2, 0.7]])
SEEN = torch.tensor([[True, True, False], [True, False, True], [True, True, False]])
KINDS = ("mean", "lumigraph", "epipolar")


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_of_sources_that_see_and_not_negative(kind):
    weights = angle_weights(kind, COSINE, SEEN)
    assert (weights >= 0).all()
    assert (weights[~SEEN] == 0).all()
    assert weights.isfinite().all()


def test_weights_by_example():
    assert torch.equal(angle_weights("mean", COSINE, SEEN), SEEN.float())
    assert angle_weights("lumigraph", COSINE, SEEN)[:, 0].tolist() == pytest.approx([1.0, 0.8, 0.6])
    angle, widest = torch.acos(torch.tensor([0.9, 0.2]))
    expected = float((1 / angle) * (1 - angle / widest))
    assert angle_weights("epipolar", COSINE, SEEN)[0, 1].item() == pytest.approx(expected, rel=1e-4)
    assert angle_weights("epipolar", COSINE, SEEN)[2, 1].item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_ray_of_a_source_itself_and_a_single_source_count_in_full(kind):
    same = angle_weights(kind, torch.tensor([[1.0], [0.3]]), torch.ones(2, 1, dtype=torch.bool))
    if kind == "epipolar":
        assert float(normalize_weights(same)[0]) > 0.99
    alone = angle_weights(kind, torch.tensor([[0.4]]), torch.ones(1, 1, dtype=torch.bool))
    assert float(normalize_weights(alone)) == 1


@pytest.mark.parametrize("kind", KINDS[1:])
def test_gradients_are_numbers_along_a_source_s_own_ray_and_where_nothing_is_seen(kind):
    cosine = torch.tensor([[1.0, 0.5, 1.0, -1.0], [1.0, 0.2, 0.4, 1.0]], requires_grad=True)
    seen = torch.tensor([[True, False, False, True], [True, False, True, True]])
    weights = normalize_weights(angle_weights(kind, cosine, seen))
    (gradient,) = torch.autograd.grad(weights.square().sum(), cosine)
    assert weights.isfinite().all()
    assert gradient.isfinite().all()


def test_shares_sum_to_one_or_are_all_zero(generator):
    weights = torch.rand(4, 6, generator=generator)
    weights[:, 2] = 0
    total = normalize_weights(weights).sum(0)
    assert float(total[2]) == 0
    torch.testing.assert_close(total[[0, 1, 3, 4, 5]], torch.ones(5))


def test_learned_weights_lie_between_zero_and_one_and_teach_the_network(generator):
    torch.manual_seed(0)
    network = LearnedWeights(5)
    features = torch.rand(7, 5, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(7, 3, generator=generator), dim=-1)
    weights = network(features, directions, torch.rand(7, generator=generator))
    assert ((weights > 0) & (weights < 1)).all()
    weights.sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in network.parameters())
    assert network(features[:0], directions[:0], torch.empty(0)).shape == (0,)


@torch.no_grad()
def test_fresh_weights_are_those_of_the_angles(generator):
    torch.manual_seed(0)
    features = torch.rand(2, 5, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(2, 3, generator=generator), dim=-1)
    near, far = LearnedWeights(5)(features, directions, torch.tensor([0.9, 0.9 - 1 / INITIAL_COSINE_SHARPNESS]))
    assert float(near / far) == pytest.approx(e, rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_points_and_no_sources(kind):
    empty = torch.empty(2, 0)
    assert normalize_weights(angle_weights(kind, empty, empty.bool())).shape == (2, 0)
    none = torch.empty(0, 3)
    assert normalize_weights(angle_weights(kind, none, none.bool())).sum(0).tolist() == [0, 0, 0]


def test_at_first_features_and_directions_hardly_count(generator):
    network = LearnedWeights(5)
    directions = torch.nn.functional.normalize(torch.randn(7, 3, generator=generator), dim=-1)
    weights = network(torch.rand(7, 5, generator=generator), directions, torch.ones(7))
    assert ((weights - 0.5).abs() < 0.1).all()
