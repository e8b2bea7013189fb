"""Links carry messages from one stage to the next; one file a kind."""
