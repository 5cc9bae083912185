"""Fast second-order machine unlearning in JAX.

People import rooms: ``from unlearn_jax import methods, train``.
"""

__version__ = "0.1.0"
