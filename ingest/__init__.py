"""From source files to published assets: read, check, plan, tile, publish."""
