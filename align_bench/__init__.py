"""align-bench: every preference-alignment method on the same base, rows and judge, compared with honest statistics."""
