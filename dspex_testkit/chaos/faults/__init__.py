"""The faults, one a module; ``dspex_testkit.chaos.catalogue`` lists them."""
