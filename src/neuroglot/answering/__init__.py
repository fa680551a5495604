"""What models answer, with and without edits, and how sure that is."""
