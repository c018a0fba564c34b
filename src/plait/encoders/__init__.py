"""Turn prepared cells into tokens. Each encoder has one file."""
