import pytest
import torch

from lumifield.errors import DataError
from lumifield.runtime import precision

CPU = torch.device("cpu")


def dtype_inside(context: torch.autocast) -> torch.dtype:
    with context:
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize(("value", "dtype"), [("1", torch.bfloat16), ("0", torch.float32)])
def test_the_environment_decides_auto(monkeypatch: pytest.MonkeyPatch, value: str, dtype: torch.dtype):
    monkeypatch.setenv("LUMIFIELD_BF16", value)
    assert dtype_inside(precision.autocast(CPU)) == dtype
    assert dtype_inside(precision.autocast(CPU, "on")) == torch.bfloat16
    assert dtype_inside(precision.autocast(CPU, "off")) == torch.float32


def test_another_value_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUMIFIELD_BF16", "yes")
    with pytest.raises(DataError, match=r"LUMIFIELD_BF16: value: found 'yes'"):
        precision.autocast(CPU)


@pytest.mark.parametrize(("half", "full", "faster"), [(1.0, 2.0, True), (1.0, 1.1, False), (5.0, 1.0, False)])
def test_the_faster_one_wins(monkeypatch: pytest.MonkeyPatch, half: float, full: float, faster: bool):
    monkeypatch.delenv("LUMIFIELD_BF16", raising=False)
    times = iter([half, full])
    monkeypatch.setattr(precision, "measure_shortest", lambda work: next(times))
    precision.measure_on_cpu.cache_clear()
    assert precision.bf16_is_faster(CPU) is faster
    assert precision.bf16_is_faster(CPU) is faster  # no second trial: the times are used up
    precision.measure_on_cpu.cache_clear()


def test_a_machine_without_bfloat16_products_uses_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LUMIFIELD_BF16", raising=False)

    def missing(layer: torch.nn.Linear, rows: torch.Tensor, half: bool) -> None:
        if half:
            raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(precision, "layer_step", missing)
    precision.measure_on_cpu.cache_clear()
    assert precision.bf16_is_faster(CPU) is False
    precision.measure_on_cpu.cache_clear()


def test_a_device_nobody_probed_uses_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LUMIFIELD_BF16", raising=False)
    assert precision.bf16_is_faster(torch.device("meta")) is False


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_trial_takes_gradients_inside_passes_without(monkeypatch: pytest.MonkeyPatch, mode):
    steps = []
    whole = precision.layer_step

    def counted(layer: torch.nn.Linear, rows: torch.Tensor, half: bool) -> None:
        whole(layer, rows, False)  # float32, which every machine has
        steps.append(half)

    monkeypatch.setattr(precision, "layer_step", counted)
    precision.measure_on_cpu.cache_clear()
    with mode(), torch.autocast("cpu", torch.bfloat16):
        precision.measure_on_cpu()
    assert steps == [True] * 6 + [False] * 6
    precision.measure_on_cpu.cache_clear()


def test_the_timer_reports_the_shortest_run(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0.0, 3.0, 3.0, 5.0, 5.0, 9.0, 9.0, 10.0, 10.0, 16.0])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(ticks))
    runs = []
    assert precision.measure_shortest(lambda: runs.append(1)) == 1.0
    assert len(runs) == precision.TRIALS + 1
