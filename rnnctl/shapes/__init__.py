"""The shape of every tensor, of our network and of anybody's."""
