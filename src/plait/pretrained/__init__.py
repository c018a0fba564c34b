"""Other people's networks: where their files lie, and how they are read."""
