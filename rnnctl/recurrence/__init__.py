"""The arithmetic of one layer over time, forward and in reverse: tensors in, tensors out."""
