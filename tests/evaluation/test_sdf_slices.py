import torch

from lumifield.evaluation.sdf_slices import INSIDE, OUTSIDE, SIDE, render_slices
from lumifield.methods.base import Method


class Balls(Method):
    """A ball of radius 1 about a place beside the middle."""

    def signed_distance(self, points):
        return (points - torch.tensor([1.0, 0.0, 0.5])).norm(dim=-1) - 1


def test_slices_are_the_middle_planes_of_the_box():
    image = render_slices(Balls(), torch.tensor([[-2.0] * 3, [2.0] * 3])).float() / 255
    assert image.shape == (SIDE, 3 * SIDE, 3)

    def at(plane, right, up):
        """The pixel of a slice at shares of its sides."""
        return image[round((1 - up) * SIDE), plane * SIDE + round(right * SIDE)]

    def inside(color):
        return bool(color[0] > color[2])

    assert not inside(at(0, 0.5, 0.625))  # the plane x = 0 touches the ball in one point
    assert inside(at(1, 0.75, 0.625))  # x = 1, z = 0.5
    assert not inside(at(1, 0.25, 0.625))
    assert inside(at(2, 0.75, 0.5))  # x = 1, y = 0
    assert not inside(at(2, 0.5, 0.75))
    assert float(at(1, 0.75, 0.875).amax()) < 0.02  # z = 1.5: the surface
    shades = torch.tensor([INSIDE, OUTSIDE]).amax()
    assert float(image.amax()) <= float(shades)


def test_a_box_without_a_surface_has_no_line():
    image = render_slices(Balls(), torch.tensor([[4.0] * 3, [5.0] * 3]))
    assert (image[..., 2] > image[..., 0]).all()
    assert int(image.amin()) > 30
