"""What tasks that predict are made of."""
