"""The page that `onward report` writes: what is read of a run, its figures, its tables, and how they look."""
