"""Conventions: how the cells of one column write what they mean."""
