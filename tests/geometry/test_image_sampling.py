import torch
from hypothesis import given
from hypothesis import strategies as st

from analytic import around, scene_of
from lumifield.geometry.image_sampling import (
    bounding_window,
    cosine_similarity,
    is_in_image,
    sample_bicubic,
    sample_bilinear,
    sample_nearest,
)


def test_between_pixel_centers_colors_are_mixed_and_at_them_exact(generator):
    image = torch.rand(3, 4, 5, generator=generator)
    found = sample_bilinear(image, torch.tensor([[0.5, 0.5], [4.5, 3.5], [2.0, 1.5], [2.0, 1.0]]))
    assert torch.allclose(found[0], image[:, 0, 0], atol=1e-6)
    assert torch.allclose(found[1], image[:, 3, 4], atol=1e-6)
    assert torch.allclose(found[2], image[:, 1, 1:3].mean(-1), atol=1e-6)
    assert torch.allclose(found[3], image[:, 0:2, 1:3].mean((1, 2)), atol=1e-6)


def test_places_beyond_the_image_have_the_color_of_its_border(generator):
    image = torch.rand(1, 3, 3, generator=generator)
    found = sample_bilinear(image, torch.tensor([[-5.0, -5.0], [0.1, 0.1], [50.0, 1e9]]))
    assert torch.allclose(found[:, 0], image[0, [0, 0, 2], [0, 0, 2]], atol=1e-6)


def test_gradients_reach_the_image_and_the_places(generator):
    image = torch.rand(2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    xy = (1 + 3 * torch.rand(4, 2, generator=generator, dtype=torch.float64)).requires_grad_()

    def look(image, xy):
        place = 2 * xy / torch.tensor([6.0, 5.0]).double() - 1
        return torch.nn.functional.grid_sample(image[None], place[None, None], align_corners=False)[0, :, 0].T

    expected = torch.autograd.grad(look(image, xy).square().sum(), (image, xy))
    found = torch.autograd.grad(sample_bilinear(image, xy).square().sum(), (image, xy))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradgradcheck(sample_bilinear, (image, xy))


def keys(x):
    """The kernel of cubic convolution at distances of pixels."""
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near if x < 1 else far if x < 2 else 0.0


def test_cubic_convolution_is_the_sum_over_all_pixels_under_its_kernel(generator):
    image = torch.rand(2, 7, 9, generator=generator, dtype=torch.float64)
    xy = torch.tensor([2.5, 2.5]) + torch.rand(20, 2, generator=generator, dtype=torch.float64) * torch.tensor([4, 2])
    for (x, y), found in zip(xy.tolist(), sample_bicubic(image, xy), strict=True):
        expected = sum(
            keys(abs(x - column - 0.5)) * keys(abs(y - row - 0.5)) * image[:, row, column]
            for row in range(7)
            for column in range(9)
        )
        torch.testing.assert_close(found, expected)


def test_cubic_convolution_is_exact_at_centers_and_for_parabolas():
    rows, columns = torch.meshgrid(torch.arange(6.0) + 0.5, torch.arange(8.0) + 0.5, indexing="ij")

    def height(x, y):
        return 1 + x - 2 * y + 0.3 * x * y + 0.2 * x**2 - 0.1 * y**2

    image = height(columns, rows)[None]
    xy = torch.cartesian_prod(torch.linspace(1.5, 6.5, 21), torch.linspace(1.5, 4.5, 13))
    torch.testing.assert_close(sample_bicubic(image, xy)[:, 0], height(*xy.unbind(-1)))
    centers = torch.stack([columns, rows], -1).view(-1, 2)
    torch.testing.assert_close(sample_bicubic(image, centers), image.view(-1, 1))


def test_cubic_convolution_goes_on_beyond_borders_and_is_a_number_everywhere(generator):
    image = torch.rand(1, 3, 3, generator=generator)
    far = torch.tensor([[-5.0, -5.0], [0.1, 0.1], [50.0, 1e9], [float("nan"), 0.0]])
    assert torch.allclose(sample_bicubic(image, far)[:, 0], image[0, [0, 0, 2, 0], [0, 0, 2, 0]], atol=1e-6)
    assert torch.allclose(sample_bicubic(torch.full((2, 1, 1), 0.3), far), torch.tensor(0.3))


def test_cubic_convolution_keeps_edges_sharper():
    edge = (torch.arange(12.0) >= 6).float().expand(1, 5, 12)
    xy = torch.stack([torch.linspace(4, 8, 41), torch.full((41,), 2.5)], -1)
    slope = [float(look(edge, xy)[:, 0].diff().max()) for look in (sample_bilinear, sample_bicubic)]
    assert slope[1] > 1.2 * slope[0]


def test_gradients_of_cubic_convolution(generator):
    image = torch.rand(2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    xy = (1 + 3 * torch.rand(4, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(sample_bicubic, (image, xy))
    assert torch.autograd.gradgradcheck(sample_bicubic, (image, xy))


def test_a_view_that_is_looked_up_in_itself_returns_its_own_pixel_grid():
    scene = scene_of(around(3, (9, 7)))
    for index in range(3):
        rays = scene.rays(index)
        points = rays.origins + 3.0 * rays.directions
        xy, depth = scene.cameras[[index]].project(points)
        grid = torch.stack([torch.arange(63) % 9, torch.arange(63) // 9], -1) + 0.5
        assert (xy[0] - grid).abs().max() < 1e-3
        assert is_in_image(xy[0], depth[0], (9, 7)).all()
        assert (cosine_similarity(points, rays.origins[0], rays.directions) > 1 - 1e-6).all()
        behind = scene.cameras[[index]].project(rays.origins - 3.0 * rays.directions)
        assert not is_in_image(behind[0][0], behind[1][0], (9, 7)).any()


def test_the_nearest_pixel_of_an_image_in_a_flat_buffer():
    values = torch.arange(100)
    xy = torch.tensor([[0.0, 0.0], [2.9, 1.0], [-4.0, 9.0], [float("nan"), 0.5]])
    assert sample_nearest(values, 10, xy, (3, 2)).tolist() == [10, 15, 13, 10]


@given(
    st.lists(st.tuples(st.floats(-5, 60), st.floats(-5, 60)), min_size=1, max_size=5),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(0, 20),
    st.sampled_from([1, 4, 8]),
)
def test_a_window_holds_its_places_with_a_margin(places, width, height, margin, multiple):
    xy = torch.tensor(places)
    rows, columns = bounding_window(xy, (width, height), margin, multiple)
    for axis, span, size in ((0, columns, width), (1, rows, height)):
        assert 0 <= span.start < span.stop <= size
        assert span.start % multiple == 0
        assert span.stop % multiple == 0 or span.stop == size
        inside = xy[:, axis].clamp(0, size - 1)
        assert span.start <= max(float(inside.min()) - margin, 0)
        assert span.stop >= min(float(inside.max()) + margin, size)


def test_no_points():
    none = torch.empty(0, 2)
    assert sample_bilinear(torch.zeros(4, 2, 2), none).shape == (0, 4)
    assert sample_bicubic(torch.zeros(4, 2, 2), none).shape == (0, 4)
    assert is_in_image(none, torch.empty(0), (2, 2)).shape == (0,)
    assert sample_nearest(torch.zeros(4), 0, none, (2, 2)).shape == (0,)
