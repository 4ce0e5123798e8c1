"""What the reverse sweep teaches about gradients through time."""
