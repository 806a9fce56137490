"""Pictures of losses: the curve is where its values are."""

import numpy as np
import pytest
from fpga.fpga_core.training.engine.curves import MAX_POINTS, PANEL_HEIGHT, SMOOTH, LossCurves


def columns_of_dark(picture):
    """Per column the mean height of the dark curve, from the top; NaN where there is none."""
    pixels = np.array(picture)
    dark = (pixels == SMOOTH).all(axis=-1)
    rows = np.arange(dark.shape[0])[:, None]
    with np.errstate(invalid="ignore"):
        return (dark * rows).sum(axis=0) / dark.sum(axis=0)


def test_a_falling_loss_falls():
    lines = [{"iteration": step, "loss": 5.0 - step / 25, "learning_rate": 0.1} for step in range(100)]
    picture = LossCurves(lines).draw()
    assert picture.size == (800, PANEL_HEIGHT)
    heights = columns_of_dark(picture)
    heights = heights[~np.isnan(heights)]
    assert len(heights) > 600 and (np.diff(heights) >= 0).all() and heights[-1] - heights[0] > 0.7 * PANEL_HEIGHT


def test_each_part_has_a_panel_even_if_it_is_rarely_computed():
    lines = [{"iteration": step, "loss": 1.0, **({"l_cfa": 2.0} if step == 7 else {})} for step in range(10)]
    assert LossCurves(lines).draw().size == (800, 2 * PANEL_HEIGHT)


@pytest.mark.parametrize("num", [0, 1])
def test_hardly_any_iterations_are_drawn_too(num):
    LossCurves([{"iteration": 0, "loss": 1.0}] * num).draw()


def test_a_long_training_is_thinned_to_means_of_neighbours():
    """Its mean stays, at the right iterations, and so does what is drawn; the points do not grow with the lines."""
    num = 5 * MAX_POINTS
    curves = LossCurves({"iteration": step, "loss": 9.0 - step / num * 8 + (-1) ** step} for step in range(num))
    (curve,) = curves._curves.values()
    points = np.array(curve.points)
    assert MAX_POINTS / 2 <= len(points) <= MAX_POINTS
    np.testing.assert_allclose(points[:, 1], 9.0 - points[:, 0] / num * 8, atol=1e-9)
    assert points[0, 0] < 8 and points[-1, 0] > num - 9
    heights = columns_of_dark(curves.draw())
    assert (np.diff(heights[~np.isnan(heights)]) >= -1e-9).all()
