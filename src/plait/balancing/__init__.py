"""What balances the losses of several targets, one file each."""
