"""The folder of one training: files that are written whole."""
