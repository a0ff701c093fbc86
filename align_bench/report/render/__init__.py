"""The report as tables for the terminal, as Markdown, as CSV."""
