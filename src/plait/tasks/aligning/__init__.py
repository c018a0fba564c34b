"""Projections, objectives and retrieval metrics of alignment."""
