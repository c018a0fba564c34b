"""Modalities: how a column is recognised, fitted, loaded and augmented. One file a modality."""
