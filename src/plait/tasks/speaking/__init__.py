"""What tasks that speak are made of."""
