"""What each kind of result looks like as tables and text."""
