"""What an ensemble is made of: one kind of model a file."""
