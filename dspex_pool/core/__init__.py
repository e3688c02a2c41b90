"""The parts of the pure pool core: records, the line of waiters, start policy, affinity, shedding."""
