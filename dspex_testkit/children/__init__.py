"""Programs and handlers that tests run in worker processes."""
