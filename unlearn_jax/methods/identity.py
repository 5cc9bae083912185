"""Does nothing: the control, and the row "original" of every table."""

from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


def identity(learner: Learner) -> Method:
    """Return the original model. Cost: nothing."""
    del learner

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        del key, request
        return variables

    return stateless(forget)
