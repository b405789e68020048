"""A plugin that does not import."""

raise RuntimeError("the model is not here")
