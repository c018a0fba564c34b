"""Ways to balance the losses of several targets, one file each."""
