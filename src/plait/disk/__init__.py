"""Files that are written whole, and places that are looked at before the work."""
