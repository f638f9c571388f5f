import pytest
import torch

from lumifield.runtime.rng import Rng


def rng(rank: int = 0, world: int = 1) -> Rng:
    return Rng(torch.Generator().manual_seed(3), rank, world)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(
    "ask",
    [lambda d, n: d.integers(n, 1000), lambda d, n: d.uniform(n, 2), lambda d, n: d.normal(n, 3)],
    ids=["integers", "uniform", "normal"],
)
def test_processes_together_draw_what_one_draws(ask, world):
    alone = ask(rng(), 4 * world)
    for rank in range(world):
        own = ask(rng(rank, world), 4)
        assert torch.equal(own, alone[rank::world])
        assert own.is_contiguous()


def test_generators_stay_in_step_over_many_draws():
    """Each process advances its generator as far as a single process would."""
    one, other = rng(0, 2), rng(1, 2)
    for _ in range(3):
        one.uniform(5, 2)
        other.uniform(5, 2)
    assert torch.equal(one.generator.get_state(), other.generator.get_state())


def test_ranges():
    assert set(rng().integers(500, 4).tolist()) == {0, 1, 2, 3}
    uniform = rng().uniform(500, 1)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(rng().normal(4000, 1).std()) == pytest.approx(1, abs=0.05)


def test_no_rows():
    assert rng().integers(0, 5).shape == (0,)
    assert rng(1, 2).uniform(0, 3).shape == (0, 3)
