"""Inverse products: iterative solvers, low-rank inverses, preconditioners, a table."""
