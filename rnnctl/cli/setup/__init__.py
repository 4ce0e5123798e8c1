"""From options to a model and a batch."""
