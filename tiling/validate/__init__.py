"""Laws of finished tilesets: a store in, findings out. One kind of tileset per file."""
