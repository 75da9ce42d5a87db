"""The server and the command line: the only package that knows HTTP."""
