"""The program of the worker process: ``python -m dspex_pool.bridge``."""
