"""What the inspection costs on this machine."""
