"""Bytes to arrays: images, sounds, clips."""
