"""Style files as data, with a loader. Imports nothing of the project."""
