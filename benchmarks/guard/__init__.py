"""A guard against slow code that does not measure time: it counts the interpreter's instructions of one call."""
