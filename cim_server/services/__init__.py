"""Services: one noun per file, each ``routes(state) -> list[BaseRoute]``."""
