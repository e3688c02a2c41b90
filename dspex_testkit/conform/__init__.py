"""Whether a worker in any language keeps the protocol: numbered clauses, held against a command."""
