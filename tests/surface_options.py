"""Options of MetaNLR++'s programs: what both runs of a comparison are given, and what only one is."""

TRAINING = {
    "--data": ("", "--data {other}"),
    "--init": ("", "--init {surface}"),
    "--init-parts": ("--init {surface}", "--init-parts encoder"),
    "--frozen-parts": ("", "--frozen-parts shape"),
    "--steps": ("", "--steps 3"),
    "--seed": ("", "--seed 1"),
    "--max-grad-norm": ("", "--max-grad-norm 1e-3"),
    "--patch-size": ("", "--patch-size 5"),
    "--optimizer.lr": ("", "--optimizer.lr 1e-3"),
    "--shape-learning-rate-factor": ("", "--shape-learning-rate-factor 0.1"),
    "--schedule.milestone-steps": ("--schedule.kind step", "--schedule.milestone-steps 1"),
    "--schedule.gamma": ("--schedule.kind step --schedule.milestone-steps 1", "--schedule.gamma 0.5"),
    "--sdf-hidden-dim": ("", "--sdf-hidden-dim 9"),
    "--sdf-num-layers": ("", "--sdf-num-layers 2"),
    "--sdf-activation": ("", "--sdf-activation softplus"),
    "--sdf-encoding": ("", "--sdf-encoding nerf"),
    "--sdf-num-frequencies": ("--sdf-encoding nerf", "--sdf-num-frequencies 2"),
    "--sdf-frequency-std": ("--sdf-encoding fourier", "--sdf-frequency-std 2"),
    "--sdf-skip-layers": ("", "--sdf-skip-layers 1"),
    "--sdf-init": ("--sdf-activation softplus", "--sdf-init geometric"),
    "--features": ("", "--features learned"),
    "--feature-dim": ("", "--feature-dim 5"),
    "--num-encoder-stages": ("", "--num-encoder-stages 1"),
    "--num-decoder-levels": ("", "--num-decoder-levels 2"),
    "--blending": ("", "--blending mean"),
    "--num-source-views": ("", "--num-source-views 2"),
    "--source-selection": ("--num-source-views 2", "--source-selection nearest"),
    "--num-mask-rays": ("", "--num-mask-rays 9"),
    "--num-mask-samples": ("", "--num-mask-samples 3"),
    "--mask-sharpness": ("", "--mask-sharpness 20"),
    "--mask-sharpness-interval": ("", "--mask-sharpness-interval 1"),
    "--num-mask-sharpness-doublings": ("--mask-sharpness-interval 1", "--num-mask-sharpness-doublings 0"),
    "--eikonal-loss-weight": ("--steps 3", "--eikonal-loss-weight 1"),
    "--eikonal-loss": ("--steps 3", "--eikonal-loss l1"),
    "--color-loss": ("", "--color-loss l2"),
    "--num-eikonal-points": ("", "--num-eikonal-points 9"),
    "--num-mask-only-steps": ("", "--num-mask-only-steps 1"),
    "--num-joint-steps": ("", "--num-joint-steps 1"),
    "--shape-update-interval": ("--num-joint-steps 0", "--shape-update-interval 1"),
    "--visibility-tolerance": ("", "--visibility-tolerance 1"),
    "--min-visibility-tolerance": ("--visibility-tolerance 0.01", "--min-visibility-tolerance 1"),
    "--visibility-tolerance-interval": ("--visibility-tolerance 1", "--visibility-tolerance-interval 1"),
}
PRETRAINING = {
    "--data": "--data {others}",
    "--steps": "--steps 3",
    "--seed": "--seed 1",
    "--batch-size": "--batch-size 2",
    "--crop-size": "--crop-size 12",
    "--no-autoencode": "--no-autoencode",
    "--optimizer.lr": "--optimizer.lr 5e-3",
}

NETWORKS = (
    "--feature-dim 4 --num-encoder-stages 2 --encoder-width 4 --num-decoder-levels 1 --decoder-width 4 --steps 2 "
    "--device cpu"
)
SURFACE = (
    f"{NETWORKS} --sdf-hidden-dim 8 --sdf-num-layers 1 --patch-size 6 --num-mask-rays 16 --num-mask-samples 4 "
    "--num-eikonal-points 16 --num-mask-only-steps 0 "
    "--validate-every 0 --num-validation-views 0 --bf16 off"
)
