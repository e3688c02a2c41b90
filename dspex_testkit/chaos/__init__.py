"""Faults that prove themselves: typed values that are injected into pools on any kind of port, and leave evidence."""
