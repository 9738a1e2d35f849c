"""Harnesses that break things on purpose, at length; each is a command, and a short form of it is a test."""
