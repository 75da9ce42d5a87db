"""CQL2 (OGC 21-065r2): filters as clients write them, as a tree, as a condition inside SQL."""
