"""The paths, a module for each resource: its ``router(parts)`` makes the routes that work with the parts."""
