"""The planted-bug bench: bugs of real pools, planted into ours, and what finds them."""
