"""Spelling, decoders and metrics of tasks that write text."""
