"""What tasks that write text are made of."""
