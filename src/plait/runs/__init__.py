"""The folder of one training: its lock, what was asked, and files that are written whole."""
