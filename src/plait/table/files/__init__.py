"""Files that hold tables: one module for each family of formats."""
