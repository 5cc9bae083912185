"""Curvature matrices and their diagonals, in evaluation mode only.

In training mode batch-norm makes an example's gradient depend on its neighbours, and
"the gradient of one example" has no meaning; here every example stands alone.
"""
