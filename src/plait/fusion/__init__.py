"""Ways to fuse the tokens of all columns into one vector a row, one file each."""
