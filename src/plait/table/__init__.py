"""Tables: reading, inferring what columns are, checking, splitting."""
