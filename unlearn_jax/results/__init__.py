"""Rows, runs, pieces that survive a kill, and the tables and figures made of them."""
