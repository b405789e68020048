"""Composition root: builds the objects, joins them, and hands them to the command line."""
