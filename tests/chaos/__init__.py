"""Harnesses that break things on purpose, at length; each is a command, and a short form of it is a test.

`lives` starts services quickly, `databases` makes something to break, `sending` sends until it is acknowledged,
`events` posts events and looks for them in the end.
"""
