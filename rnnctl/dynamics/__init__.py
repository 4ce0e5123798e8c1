"""What W_hh itself tells."""
