"""SSH: one connection per computer and worker, many commands on it.

Everything here has a time limit and ends early when the worker is told to stop.
"""
