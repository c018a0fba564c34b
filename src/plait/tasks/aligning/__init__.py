"""What alignment is made of."""
