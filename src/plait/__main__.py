"""`python -m plait`."""

from plait.cli import entry

entry()
