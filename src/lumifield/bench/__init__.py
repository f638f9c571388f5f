"""Training speed against a plain NeRF step, and the time to reach a PSNR, in one measured run."""
