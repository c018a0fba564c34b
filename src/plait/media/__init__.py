"""Bytes to arrays: images, audio, videos."""
