"""`Preprocessing.seen`: where in the photo the network's pixels come from, checked on ramps that tell their place."""

import numpy as np
import pytest

from taxonet.images import Preprocessing


@pytest.mark.parametrize("size", [(120, 200), (200, 120), (90, 90), (41, 97)])
@pytest.mark.parametrize(
    "geometry",
    [
        "resize(64, bilinear) | center_crop(56)",
        "resize(33, bilinear) | center_crop(40)",
        "squash(48, 80, bilinear)",
        "fit(64, bilinear)",
        "center_crop(64, 32)",
        "resize(50, bilinear) | pad(4) | center_crop(40)",
        "fit(100, bilinear) | center_crop(60, 50) | squash(30, 30, bilinear)",
    ],
)
def test_every_pixel_comes_from_where_it_is_said(geometry, size):
    height, width = size
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([x, y, np.full_like(x, 255)], axis=2).astype(np.uint8)
    preprocessing = Preprocessing.parse(f"rgb | {geometry} | normalize(half)")
    pixels = preprocessing.pixels(ramps).astype(float)
    left, upper, right, lower = preprocessing.seen(height, width)
    rows, columns = pixels.shape[:2]
    from_x = left + (np.arange(columns) + 0.5) * (right - left) / columns - 0.5
    from_y = upper + (np.arange(rows) + 0.5) * (lower - upper) / rows - 0.5
    seen = pixels[..., 2] == 255  # the others are zeros from beyond the border, or at it
    margin = 2.5  # pixels of the photo at its border, where the filter is cut off
    inside = np.outer(
        (from_y > margin) & (from_y < height - 1 - margin), (from_x > margin) & (from_x < width - 1 - margin)
    )
    assert (seen & inside).sum() > 100
    assert np.abs(pixels[..., 0] - from_x[None, :])[seen & inside].max() < 1.3  # two resizes round twice
    assert np.abs(pixels[..., 1] - from_y[:, None])[seen & inside].max() < 1.3  # two resizes round twice
    outside = np.outer((from_y < -3) | (from_y > height + 2), np.ones(columns, bool))
    outside |= np.outer(np.ones(rows, bool), (from_x < -3) | (from_x > width + 2))
    assert not pixels[outside].any()
