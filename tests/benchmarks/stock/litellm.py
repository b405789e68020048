"""Stands in for litellm, which downloads a file when it is imported; no flow here asks a model."""


def completion(*arguments, **options):
    raise RuntimeError("The benchmark's flows ask no model.")


embedding = completion
