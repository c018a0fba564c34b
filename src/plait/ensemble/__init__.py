"""Several members as one model."""
