"""Alignment and waves of tasks that speak."""
