"""From prepared cells to tokens. One file an encoder."""
