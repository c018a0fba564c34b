"""From the tokens of all columns to one vector a row. One file a fusion."""
