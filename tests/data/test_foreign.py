"""Images of another set: shape, scale, and that they are those of the set."""

import numpy as np
import pytest

from unlearn_jax.data.digits import digits
from unlearn_jax.data.foreign import foreign_images


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 23, 1), (16, 16, 3)])
def test_photographs_come_in_every_shape(shape):
    found = foreign_images("photos", shape, 40)
    assert found.shape == (40, *shape)
    assert found.dtype == np.float32
    assert abs(found.mean()) < 1e-4
    assert found.std() == pytest.approx(1, rel=1e-4)
    np.testing.assert_array_equal(found, foreign_images("photos", shape, 40))
    # Neighbours in a photograph are alike, and its colours differ.
    assert np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1] > 0.5
    assert shape[2] == 1 or (found[..., 0] != found[..., 1]).any()


def test_a_set_in_its_own_shape_stays_what_it_is():
    found = foreign_images("digits", (8, 8, 1), 30)
    whole = np.asarray(digits().splits.train.inputs)
    distances = np.corrcoef(found.reshape(30, -1), whole.reshape(len(whole), -1))
    assert distances[:30, 30:].max(axis=1).min() > 0.9999
    wide = foreign_images("digits", (16, 16, 3), 5)
    np.testing.assert_array_equal(wide[..., 0], wide[..., 2])


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="no images of 'birds'; choose from photos"):
        foreign_images("birds", (8, 8, 1), 3)
    with pytest.raises(ValueError, match="gaussian_classes holds inputs of shape"):
        foreign_images("gaussian_classes", (8, 8, 1), 3)
    with pytest.raises(ValueError, match="expected height, width and channels"):
        foreign_images("photos", (5,), 3)
