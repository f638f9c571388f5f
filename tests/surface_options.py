"""Options of MetaNLR++'s programs: what both runs of a comparison are given, and what only one is."""

TRAINING = {
    "--data": ("", "--data {other}"),
    "--init": ("", "--init {surface}"),
    "--started": ("--init {surface}", "--started encoder"),
    "--frozen": ("", "--frozen shape"),
    "--steps": ("", "--steps 3"),
    "--seed": ("", "--seed 1"),
    "--max-grad-norm": ("", "--max-grad-norm 1e-3"),
    "--patch-size": ("", "--patch-size 5"),
    "--optimizer.lr": ("", "--optimizer.lr 1e-3"),
    "--shape-rate": ("", "--shape-rate 0.1"),
    "--schedule.milestone-steps": ("--schedule.kind step", "--schedule.milestone-steps 1"),
    "--schedule.gamma": ("--schedule.kind step --schedule.milestone-steps 1", "--schedule.gamma 0.5"),
    "--sdf-width": ("", "--sdf-width 9"),
    "--sdf-depth": ("", "--sdf-depth 2"),
    "--sdf-activation": ("", "--sdf-activation softplus"),
    "--sdf-encoding": ("", "--sdf-encoding nerf"),
    "--sdf-bands": ("--sdf-encoding nerf", "--sdf-bands 2"),
    "--sdf-sigma": ("--sdf-encoding fourier", "--sdf-sigma 2"),
    "--sdf-skips": ("", "--sdf-skips 1"),
    "--sdf-start": ("--sdf-activation softplus", "--sdf-start geometric"),
    "--features": ("", "--features learned"),
    "--channels": ("", "--channels 5"),
    "--encoder-stages": ("", "--encoder-stages 1"),
    "--decoder-depth": ("", "--decoder-depth 2"),
    "--blending": ("", "--blending mean"),
    "--sources": ("", "--sources 2"),
    "--source-choice": ("--sources 2", "--source-choice nearest"),
    "--mask-rays": ("", "--mask-rays 9"),
    "--mask-samples": ("", "--mask-samples 3"),
    "--mask-sharpness": ("", "--mask-sharpness 20"),
    "--mask-period": ("", "--mask-period 1"),
    "--mask-doublings": ("--mask-period 1", "--mask-doublings 0"),
    "--eikonal": ("--steps 3", "--eikonal 1"),
    "--eikonal-error": ("--steps 3", "--eikonal-error l1"),
    "--color-error": ("", "--color-error l2"),
    "--eikonal-points": ("", "--eikonal-points 9"),
    "--num-mask-only-steps": ("", "--num-mask-only-steps 1"),
    "--shape-first": ("", "--shape-first 1"),
    "--shape-every": ("--shape-first 0", "--shape-every 1"),
    "--slack": ("", "--slack 1"),
    "--slack-least": ("--slack 0.01", "--slack-least 1"),
    "--slack-period": ("--slack 1", "--slack-period 1"),
}
PRETRAINING = {
    "--data": "--data {others}",
    "--steps": "--steps 3",
    "--seed": "--seed 1",
    "--batch-size": "--batch-size 2",
    "--crop": "--crop 12",
    "--no-autoencode": "--no-autoencode",
    "--optimizer.lr": "--optimizer.lr 5e-3",
}

NETWORKS = (
    "--channels 4 --encoder-stages 2 --encoder-width 4 --decoder-depth 1 --decoder-width 4 --steps 2 --device cpu"
)
SURFACE = (
    f"{NETWORKS} --sdf-width 8 --sdf-depth 1 --patch-size 6 --mask-rays 16 --mask-samples 4 --eikonal-points 16 --num-mask-only-steps 0 "
    "--validate-every 0 --num-validation-views 0 --bf16 off"
)
