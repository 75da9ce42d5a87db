"""One file per revision, oldest first; a file never changes once it was released."""
