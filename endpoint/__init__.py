"""Organizer, presenter, attendee: the programs that hold the keys. The only package that may import `crypto`."""
