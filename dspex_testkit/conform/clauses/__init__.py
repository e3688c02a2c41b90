"""All clauses, a module a subject."""
