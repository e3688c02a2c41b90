"""Simulated runs of a whole pool: virtual time, a scheduler that hunts, faults as data, replay from one line."""
