"""The network: encode, fuse, answer."""
