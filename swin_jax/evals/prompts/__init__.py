"""Names of classes, and the sentences they are put into."""
