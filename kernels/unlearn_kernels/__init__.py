"""Faster arithmetic behind one function per operation.

Each folder is one operation: a public function that picks the fastest form for the
platform and the shape, the plain reference, and the faster forms. JAX is all it needs.
"""
