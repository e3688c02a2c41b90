"""Plans of faults as data, and scenarios by name: safety while faults run, then a pool that is whole again."""
