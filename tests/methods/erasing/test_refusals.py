"""What cannot be meant is refused in one line, before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.methods.erasing.adversarial import adv_unlearn
from unlearn_jax.methods.erasing.adversarial_closed import adv_closed, adv_closed_newton
from unlearn_jax.methods.erasing.all_but_one import all_but_one
from unlearn_jax.methods.erasing.amnesia import amnesia
from unlearn_jax.methods.erasing.amnesia_codes import (
    Labels,
    amnesia_codes,
    amnesia_codes_newton,
)
from unlearn_jax.methods.erasing.ascent import few_shot, few_shot_natural
from unlearn_jax.methods.erasing.correction import doco
from unlearn_jax.methods.erasing.esd import esd
from unlearn_jax.methods.erasing.freeze_guard import freeze_as_guard
from unlearn_jax.methods.erasing.newton_prompts import (
    all_but_one_newton,
    amnesia_newton,
    esd_newton,
)
from unlearn_jax.methods.erasing.noise_codes import (
    noise_codes,
    noise_codes_closed,
)
from unlearn_jax.methods.erasing.repulsion import adapt_then_unlearn
from unlearn_jax.methods.erasing.salun import salun
from unlearn_jax.methods.erasing.salun_newton import salun_newton
from unlearn_jax.methods.erasing.score_forgetting import score_forgetting
from unlearn_jax.methods.erasing.spm import spm, spm_newton
from unlearn_jax.methods.erasing.steering import trce_steering
from unlearn_jax.methods.erasing.text_directions import text_to_unlearn
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.models.variational import variational
from unlearn_jax.types import Batch

KEY = jax.random.key(0)
REFUSED: tuple[tuple[Any, dict[str, Any]], ...] = (
    (adv_closed, {"ways": 0}),
    (adv_closed_newton, {"attack_l2": -1.0}),
    (adv_unlearn, {"batch_size": 0}),
    (all_but_one, {"silent_weight": -1.0}),
    (all_but_one_newton, {"ways": 0}),
    (amnesia, {"memories": 0}),
    (amnesia_codes, {"points": 0}),
    (amnesia_codes_newton, {"memories": -1}),
    (amnesia_newton, {"memories": 0}),
    (doco, {"ways": 2.5}),
    (esd, {"batch_size": 0}),
    (esd_newton, {"strength": float("nan")}),
    (few_shot, {"shots": 0}),
    (few_shot_natural, {"points": 0}),
    (noise_codes, {"batch_size": 0}),
    (noise_codes_closed, {"strength": -0.1}),
    (adapt_then_unlearn, {"points": 0}),
    (freeze_as_guard, {"every": 0}),
    (salun, {"retain_weight": float("inf")}),
    (salun_newton, {"fraction": -0.5}),
    (score_forgetting, {"weight": -1.0}),
    (text_to_unlearn, {"mapper_steps": 0}),
    (spm, {"batch_size": True}),
    (spm_newton, {"anchor_weight": float("nan")}),
    (trce_steering, {"ways": 0}),
)


@pytest.mark.parametrize(("method", "options"), REFUSED)
def test_options_are_refused_by_name_before_anything_else(method, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{method.__name__}: {name}"):
        method(KEY, None, None, **options)


def test_labels_that_there_are_not_are_refused():
    autoencoder = variational((2, 2, 1), 3, codes=1, widths=(3,), dtype=jnp.float64)
    variables = autoencoder.model.init(KEY)
    for (lost, kept), told in (
        (([3], [0, 2]), "from 0 to 2"),
        (([1], [0, -1]), "from 0 to 2"),
        (([], [0, 2]), "at least one"),
        (([1], []), "at least one"),
        (([1, 2], [0, 2]), "label 2"),
    ):
        labels = Labels(np.array(lost, int), np.array(kept, int))
        for method in (amnesia_codes, amnesia_codes_newton):
            with pytest.raises(ValueError, match=told):
                method(KEY, autoencoder, variables, labels)
    labels = Labels(np.array([1]), np.array([0]))
    with pytest.raises(ValueError, match="weight must be a finite"):
        amnesia_codes(KEY, autoencoder, variables, labels, weight=float("nan"))


def test_what_is_picked_has_weight_where_anything_has():
    images = jnp.array([[jnp.nan], [1.0], [2.0], [jnp.nan]])
    data = Batch(images, jnp.arange(4), jnp.array([0.0, 1.0, 3.0, 0.0]))
    found = picked(KEY, data, 400)
    assert set(np.unique(found.targets)) == {1, 2}
    assert abs(float(jnp.mean(found.targets == 2)) - 0.75) < 0.1
    np.testing.assert_array_equal(found.weights, 1)
    none = picked(KEY, data._replace(weights=jnp.zeros(4)), 5)
    np.testing.assert_array_equal(none.weights, 0)
    np.testing.assert_array_equal(none.inputs, 0)
