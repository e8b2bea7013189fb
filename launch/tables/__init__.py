"""What was measured, for people: tables, files for other programs, and figures."""
