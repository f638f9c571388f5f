"""A learned start scored: copies adapt to each task of a split, beside the starts that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from lumifield.data.collection import Task, tasks
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.evaluation import evaluate as scoring
from lumifield.evaluation import metrics as metrics_module
from lumifield.evaluation import protocol, report
from lumifield.export import WeightsExport
from lumifield.export.weights import write_portable_files
from lumifield.meta import Adapt, FewShot, MetaTrain, Start
from lumifield.meta.baselines import MATCHED_PSNR, matched, shuffled, standard
from lumifield.meta.few_shot import divided, mean_psnr, spread, taught
from lumifield.methods.base import Method
from lumifield.runs.run_folder import CONFIG, LoadedRun, write_json
from lumifield.runtime import distributed
from lumifield.runtime.config import from_plain

LOOKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
"""Steps of the adaptation that the curves are looked at after, beside its last one."""
SCORING = protocol.Scoring(appearance="mean", right_half=False)
RULES = {
    "photograph": "the left half of each image is learned from, its right half is scored",
    "object": "the first frames of each object are learned from, frames {first} to {last} are scored",
    "scene": "the first images of each scene are learned from, its own held-out ones are scored",
}


@dataclass(frozen=True)
class Trial:
    """What a start came to on a task: PSNR over all held-out views, curves over some of them, and looks at each."""

    start: Start
    task: str
    before: float
    psnr: float
    curve: dict[str, float]
    looks: list[dict[str, Any]]


@dataclass(frozen=True)
class Bench:
    """What all trials of an evaluation share."""

    run: LoadedRun
    few_shot: FewShot
    adapt: Adapt
    out: Path
    save_images: bool
    perceptual: metrics_module.Perceptual | None

    def trial(self, kind: Start, start: Method, task: Task) -> tuple[Trial, Scene]:
        """Adapts a copy of a start to a task and scores it; of the learned one each view is looked at."""
        support, held_out = divided(task, self.few_shot)
        loop, views = self.few_shot.loop, spread(held_out, self.adapt.curve_views)
        looks = [step for step in LOOKS if step < loop.steps] + [loop.steps]
        copy, curve = taught(start, support, views, loop, seed=self.adapt.seed, looks=looks)
        before = mean_psnr(start, held_out)
        found: list[dict[str, Any]] = []
        if kind == "meta":
            run = replace(self.run, method=copy)
            if self.adapt.keep:
                self._keep(run, task, held_out)
            found = [self._look(run, task, held_out, row) for row in range(len(held_out))]
            psnr = metrics_module.mean_scores(found)["psnr"]
            assert psnr is not None
        else:
            psnr = mean_psnr(copy, held_out)
        return Trial(kind, task.name, before, psnr, {str(k): v for k, v in curve.items()}, found), held_out

    def _look(self, run: LoadedRun, task: Task, scene: Scene, row: int) -> dict[str, Any]:
        name = Path(task.name).name
        file = self.out / name / f"{row:03d}.png" if self.save_images else None
        seen = scoring.score_view(run, scene, row, SCORING, self.perceptual, file)
        return seen | {"name": f"{name}: {seen['name']}"}

    def _keep(self, run: LoadedRun, task: Task, held_out: Scene) -> None:
        run = replace(run, scenes={"train": task.cameras(), "test": held_out})
        write_portable_files(WeightsExport(half=False), run, self.out / Path(task.name).name / "scene")

    def start(self, kind: Start) -> Method:
        """The start of a kind; the matched one sees what the learned one shows to the cameras of the training."""
        method, scene, seed = self.run.method, self.run.scenes["train"], self.adapt.seed
        match kind:
            case "meta":
                return method
            case "standard":
                return standard(method, scene, seed)
            case "matched":
                return matched(method, scene, seed)
            case "shuffled":
                return shuffled(method, scene, seed)


def evaluate(
    run: LoadedRun,
    split: str,
    adapt: Adapt,
    *,
    save_images: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Adapts copies of a learned start to every task of a split, scores them and writes `evaluate.folder_of` it.

    Returns what metrics.json holds: scores of the adapted learned start, and under `starts` each start's PSNR before
    and after, a task and on the way, which curves.json and curves.svg hold too. Several processes share the tasks.
    Raises `DataError` where the run does not know its collection.
    """
    rank, world = distributed.join()
    if run.source is None:
        raise DataError(run.folder, "data", "unknown to the run", "a collection", "evaluate a meta-trained run")
    if "meta" not in adapt.starts:
        raise DataError("--starts", "starts", ", ".join(adapt.starts) or "none", "meta among them", "add it")
    few_shot = adapt.of(from_plain(MetaTrain, run.config["meta"], run.folder / CONFIG).few_shot)
    out = scoring.evaluation_folder(run, split)
    perceptual, reason = metrics_module.load_lpips(run.device)
    bench = Bench(run, few_shot, adapt, out, save_images, perceptual)
    every = tasks(run.source, split)
    own, scene = [], None
    for kind in adapt.starts:
        start = bench.start(kind)
        for task in every[rank::world]:
            trial, scene = bench.trial(kind, start, task)
            own.append(trial)
            if progress is not None:
                progress(len(own), len(adapt.starts) * len(every[rank::world]))
    trials = [Trial(**each) for share in distributed.gather([asdict(trial) for trial in own]) for each in share]
    if scene is None:  # more processes than tasks
        _, scene = divided(every[0], few_shot)
    metrics = summary(bench, split, every[0], scene, trials, reason)
    if rank == 0:
        write(out, metrics, trials, scoring.read_history(run.folder))
    return metrics


def refuse_adaptation(run: LoadedRun) -> NoReturn:
    """Raises `DataError` for a run that does not adapt."""
    fix = "leave out the options of adaptation"
    raise DataError(run.folder, "run", "of one scene", "a meta-trained one, which adapts", fix)


def refuse_appearance(run: LoadedRun, asked: protocol.Scoring) -> None:
    """Raises `DataError` where a meta-trained run is to be scored otherwise than by its adaptation."""
    if asked != protocol.Scoring.of(run):
        fix = "leave out --appearance and --right-half"
        raise DataError(run.folder, "run", "meta-trained, it adapts to each task", "one of one scene", fix)


def summary(
    bench: Bench, split: str, task: Task, scene: Scene, trials: list[Trial], reason: str | None
) -> dict[str, Any]:
    """All of metrics.json; `task` and `scene` are one of the split's, and what is held out of one."""
    looks = [look for trial in trials if trial.start == "meta" for look in trial.looks]
    metrics = scoring.summarize(bench.run, split, looks, reason)
    metrics["protocol"] = protocol.describe_protocol(bench.run, split, scene, scoring.image_sizes(looks), SCORING) | {
        "split_rule": rule(task, bench.few_shot),
        "adaptation": told(bench.few_shot),
        "starts": f"matched ones come within {MATCHED_PSNR:g} dB of what the learned one shows",
    }
    metrics["initializations"] = {
        kind: row([trial for trial in trials if trial.start == kind]) for kind in bench.adapt.starts
    }
    return metrics


def row(trials: list[Trial]) -> dict[str, Any]:
    """Means over the tasks, and each task's."""
    curve = {int(step): sum(trial.curve[step] for trial in trials) / len(trials) for step in trials[0].curve}
    return {
        "before": sum(trial.before for trial in trials) / len(trials),
        "psnr": sum(trial.psnr for trial in trials) / len(trials),
        "curve": dict(sorted(curve.items())),
        "tasks": {trial.task: {"before": trial.before, "psnr": trial.psnr} for trial in trials},
    }


def rule(task: Task, few_shot: FewShot) -> str:
    """What is learned from and what is scored, in words."""
    if len(task.cameras()) == 1:
        return RULES["photograph"]
    first, end = few_shot.held_out
    kind = "object" if task.held_out() is None else "scene"
    return RULES[kind].format(first=first, last=end - 1)


def told(few_shot: FewShot) -> str:
    """The adaptation in words."""
    loop = few_shot.loop
    rays = "the method's" if loop.batch is None else str(loop.batch)
    return (
        f"{loop.steps} steps of {loop.optimizer.kind}, rate {loop.optimizer.lr:g}, {rays} rays, on the first "
        f"{few_shot.support} image{'s' if few_shot.support > 1 else ''} of a task"
    )


def write(out: Path, metrics: dict[str, Any], trials: list[Trial], history: list[dict[str, Any]]) -> None:
    """metrics.json and .csv, curves.json, curves.svg and report.html."""
    looks = [look for trial in trials for look in trial.looks]
    sights = [report.ReportView(each["name"], each["scores"], each["images"]) for each in looks]
    lines = {kind: row["curve"] for kind, row in metrics["initializations"].items()}
    report.write_report(out / "report.html", metrics, sights, history)
    report.write_curves(out / "curves.svg", lines)
    write_json(out / "curves.json", metrics["initializations"])
    scoring.write_scores(out, metrics)
