"""Experiments: a configuration in, records out.

``python -m experiments.compare`` all methods on the same requests;
``python -m experiments.unlearn METHOD`` one method; ``python -m experiments.list`` what
there is; ``python -m experiments.report RUN`` tables and figures of a finished run.
"""
