"""Real conversations with workers, kept in files: recorded, played again, and compared."""
