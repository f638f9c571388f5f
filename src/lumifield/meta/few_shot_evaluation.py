"""Few-shot evaluation: clones of an initialization adapt to each task of a split and are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from lumifield.data.scene import Scene
from lumifield.data.scene_collection import Task, list_tasks
from lumifield.errors import DataError
from lumifield.evaluation import evaluate, report
from lumifield.evaluation.metrics import InitializationScores, Metrics, Perceptual, TaskScore, load_lpips, mean_scores
from lumifield.evaluation.protocol import Scoring, describe_protocol
from lumifield.evaluation.report import ReportView
from lumifield.export import WeightsExport
from lumifield.export.weights import write_portable_scene
from lumifield.meta import Adapt, FewShot, Initialization
from lumifield.meta.few_shot import adapt_to_task, evenly_spaced_views, mean_psnr, read_meta_settings, split_task
from lumifield.meta.reference_initializations import (
    MATCHED_PSNR,
    matched_initialization,
    random_initialization,
    shuffled_initialization,
)
from lumifield.methods.base import Method
from lumifield.runs.checkpoint import Validation, read_history
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime import distributed
from lumifield.runtime.files import write_json

CURVE_STEPS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
"""Adaptation steps at which curves are evaluated, besides the last one."""
SCORING = Scoring(appearance="mean", right_half=False)
RULES = {
    "image": "adapts to the left half of each image, scores its right half",
    "object": "adapts to the first frames of each object, scores frames {first} to {last}",
    "scene": "adapts to the first images of each scene, scores its held-out images",
}


@dataclass(frozen=True)
class AdaptationResult:
    """Result of adapting to a task: PSNR over all held-out views, curve over some of them, and scored views."""

    initialization: Initialization
    task: str
    before: float
    psnr: float
    curve: dict[int, float]
    views: list[ReportView]

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> AdaptationResult:
        """The inverse of `asdict`, also after a round trip through JSON."""
        curve = {int(step): psnr for step, psnr in plain["curve"].items()}
        views = [ReportView.from_json(view) for view in plain["views"]]
        return AdaptationResult(**{**plain, "curve": curve, "views": views})


@dataclass(frozen=True)
class FewShotEvaluation:
    """State shared by all adaptations of an evaluation."""

    run: LoadedRun
    few_shot: FewShot
    adapt: Adapt
    out: Path
    save_images: bool
    perceptual: Perceptual | None

    def adapt_and_score(
        self, kind: Initialization, initialization: Method, task: Task
    ) -> tuple[AdaptationResult, Scene]:
        """Adapts a clone to a task and scores it; views are saved for the meta-learned initialization only."""
        support, held_out = split_task(task, self.few_shot)
        loop, curve_views = self.few_shot.loop, evenly_spaced_views(held_out, self.adapt.num_curve_views)
        eval_steps = [step for step in CURVE_STEPS if step < loop.steps] + [loop.steps]
        clone, curve = adapt_to_task(
            initialization, support, curve_views, loop, seed=self.adapt.seed, eval_steps=eval_steps
        )
        before = mean_psnr(initialization, held_out)
        views: list[ReportView] = []
        if kind == "meta":
            run = replace(self.run, method=clone)
            if self.adapt.save_adapted:
                self._save_adapted(run, task, held_out)
            views = [self._score_view(run, task, held_out, row) for row in range(len(held_out))]
            psnr = mean_scores([view.score for view in views]).psnr
            assert psnr is not None
        else:
            psnr = mean_psnr(clone, held_out)
        return AdaptationResult(kind, task.name, before, psnr, curve, views), held_out

    def _score_view(self, run: LoadedRun, task: Task, scene: Scene, row: int) -> ReportView:
        name = Path(task.name).name
        file = self.out / name / f"{row:03d}.png" if self.save_images else None
        view = evaluate.score_view(run, scene, row, SCORING, self.perceptual, file)
        return replace(view, score=replace(view.score, name=f"{name}: {view.score.name}"))

    def _save_adapted(self, run: LoadedRun, task: Task, held_out: Scene) -> None:
        run = replace(run, scenes={"train": task.cameras(), "test": held_out})
        write_portable_scene(WeightsExport(half=False), run, self.out / Path(task.name).name / "scene")

    def build_initialization(self, kind: Initialization) -> Method:
        """Initialization of a kind."""
        method, scene, seed = self.run.method, self.run.scenes["train"], self.adapt.seed
        match kind:
            case "meta":
                return method
            case "random":
                return random_initialization(method, scene, seed)
            case "matched":
                return matched_initialization(method, scene, seed)
            case "shuffled":
                return shuffled_initialization(method, scene, seed)


def evaluate_few_shot(
    run: LoadedRun,
    split: str,
    adapt: Adapt,
    *,
    save_images: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Adapts clones to every task of a split, scores them and writes the evaluation folder.

    Returns the scores of the adapted meta-learned initialization, and under `initializations` the PSNR of each before
    and after adaptation, per task and over steps, as in curves.json and curves.svg. Several processes share the tasks.
    Raises `DataError` if the run has no collection.
    """
    rank, world = distributed.join()
    if run.source is None:
        raise DataError(run.folder, "data", "none", "a collection", "evaluate a meta-trained run")
    if "meta" not in adapt.initializations:
        raise DataError(
            "--initializations",
            "initializations",
            ", ".join(adapt.initializations) or "none",
            "meta among them",
            "add it",
        )
    few_shot = adapt.of(read_meta_settings(run).few_shot)
    out = evaluate.evaluation_folder(run, split)
    perceptual, reason = load_lpips(run.device)
    evaluation = FewShotEvaluation(run, few_shot, adapt, out, save_images, perceptual)
    every = list_tasks(run.source, split)
    own, scene = [], None
    for kind in adapt.initializations:
        initialization = evaluation.build_initialization(kind)
        for task in every[rank::world]:
            result, scene = evaluation.adapt_and_score(kind, initialization, task)
            own.append(result)
            if progress is not None:
                progress(len(own), len(adapt.initializations) * len(every[rank::world]))
    shares = distributed.gather([asdict(result) for result in own])
    results = [AdaptationResult.from_json(plain) for share in shares for plain in share]
    if scene is None:  # more processes than tasks
        _, scene = split_task(every[0], few_shot)
    metrics = summarize_results(evaluation, split, every[0], scene, results, reason)
    if rank == 0:
        write_few_shot_results(metrics, results, read_history(run.folder))
    return metrics


def forbid_adaptation(run: LoadedRun) -> NoReturn:
    """Raises `DataError` for adaptation options of a run that is not meta-learned."""
    fix = "drop the adaptation options"
    raise DataError(run.folder, "run", "a run of one scene", "a meta-trained run", fix)


def forbid_appearance(run: LoadedRun, scoring: Scoring) -> None:
    """Raises `DataError` for appearance options of a meta-learned run."""
    if scoring != Scoring.of(run):
        fix = "drop --appearance and --right-half"
        raise DataError(run.folder, "run", "a meta-trained run", "a run of one scene", fix)


def summarize_results(
    evaluation: FewShotEvaluation,
    split: str,
    task: Task,
    scene: Scene,
    results: list[AdaptationResult],
    reason: str | None,
) -> Metrics:
    """Metrics of the results; `task` and `scene` are a task of the split and its held-out part."""
    views = [view for result in results if result.initialization == "meta" for view in result.views]
    sizes = [view.size for view in views]
    protocol = describe_protocol(evaluation.run, split, scene, sizes, SCORING) | {
        "split_rule": describe_task_split(task, evaluation.few_shot),
        "adaptation": describe_adaptation(evaluation.few_shot),
        "initializations": f"matched ones reproduce renderings of the meta-learned one to {MATCHED_PSNR:g} dB",
    }
    metrics = evaluate.summarize(evaluation.run, split, views, protocol, evaluation.out, lpips_reason=reason)
    initializations = {
        kind: mean_results([result for result in results if result.initialization == kind])
        for kind in evaluation.adapt.initializations
    }
    return replace(metrics, initializations=initializations)


def mean_results(results: list[AdaptationResult]) -> InitializationScores:
    """Means over tasks, and the results of each task."""
    curve = {step: sum(result.curve[step] for result in results) / len(results) for step in sorted(results[0].curve)}
    return InitializationScores(
        before=sum(result.before for result in results) / len(results),
        psnr=sum(result.psnr for result in results) / len(results),
        curve=curve,
        tasks={result.task: TaskScore(result.before, result.psnr) for result in results},
    )


def describe_task_split(task: Task, few_shot: FewShot) -> str:
    """Support and held-out images in words."""
    if len(task.cameras()) == 1:
        return RULES["image"]
    first, end = few_shot.held_out_frames
    kind = "object" if task.held_out() is None else "scene"
    return RULES[kind].format(first=first, last=end - 1)


def describe_adaptation(few_shot: FewShot) -> str:
    """Adaptation in words."""
    loop = few_shot.loop
    rays = "the method's" if loop.batch_size is None else str(loop.batch_size)
    return (
        f"{loop.steps} steps of {loop.optimizer.kind}, rate {loop.optimizer.lr:g}, {rays} rays, on the first "
        f"{few_shot.num_support_images} image{'s' if few_shot.num_support_images > 1 else ''} of a task"
    )


def write_few_shot_results(metrics: Metrics, results: list[AdaptationResult], history: Sequence[Validation]) -> None:
    """Writes metrics.json, metrics.csv, curves.json, curves.svg and report.html."""
    scores = metrics.initializations or {}
    report.write_report(metrics, [view for result in results for view in result.views], history)
    report.write_curves(metrics.folder / "curves.svg", {kind: row.curve for kind, row in scores.items()})
    write_json(metrics.folder / "curves.json", {kind: asdict(row) for kind, row in scores.items()})
    evaluate.write_scores(metrics)
