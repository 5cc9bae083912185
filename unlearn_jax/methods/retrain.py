"""Trains from scratch on the retain set: the oracle."""

from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def retrain(learner: Learner) -> Method:
    """Initialise every parameter anew and train on the retain set alone.

    Args:
        learner: Its recipe is repeated: as many passes, over fewer examples.

    Cost: one training run.
    Source: the definition of exact unlearning. Differs: some released baselines reset
        only the layers they reach and call it retraining; here the whole tree is drawn
        again, and forgotten examples never enter a batch-norm.
    """

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        del variables
        return fit(key, learner, request.retain)

    return stateless(forget)
