"""Prints a digest of what every numba kernel returns, and how kernels are cached; run as a process of its own."""

from __future__ import annotations

import hashlib
import json

import torch
from loops import OFFSETS, RESOLUTIONS, packed

from lumifield import kernels

generator = torch.Generator().manual_seed(0)
points = torch.rand(1000, 3, generator=generator).requires_grad_()
table = torch.randn(OFFSETS[-1], 2, generator=generator).requires_grad_()
optical_depth = torch.rand(1000, generator=generator).requires_grad_()
directions = torch.nn.functional.normalize(torch.rand(50, 3, generator=generator) - 0.5, dim=-1)
rays = torch.zeros(50, 3), directions, torch.zeros(50), torch.ones(50), torch.zeros(50)
space = torch.rand(8, 8, 8, generator=generator) > 0.5, torch.tensor([[-1.0] * 3, [1.0] * 3])

features = kernels.grid_encode(points, table, RESOLUTIONS, OFFSETS)
weights = kernels.packed_weights(optical_depth, packed(1000))
sums = kernels.segment_sum(weights[:, None] * features, packed(1000))
gradients = torch.autograd.grad(sums.square().sum(), (points, table, optical_depth))
intervals = kernels.march(*rays, *space, True, 0.05, 0.0)

digest = hashlib.sha256()
for tensor in (features, weights, sums, *gradients, *intervals):
    digest.update(tensor.detach().numpy().tobytes())
print(json.dumps({"digest": digest.hexdigest(), "state": kernels.available()["numba"]}))
