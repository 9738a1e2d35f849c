"""The commands of `warmstart`, a module a group.

Modules here import torch, polars and the models inside the commands only, so that `warmstart --help` is fast.
"""
