"""Search by content."""
