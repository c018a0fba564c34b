"""Pretrained networks of others: where their files are, and how they are read."""
