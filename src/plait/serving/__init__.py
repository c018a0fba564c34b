"""Serve a trained model over HTTP, with a page for people."""
