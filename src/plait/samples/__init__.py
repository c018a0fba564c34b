"""Real tables to try plait on. One file a sample."""
