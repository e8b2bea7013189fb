"""Who runs it: stage workers, the coordinator, the links between them, the feed and the metrics."""
