"""Processes that play the replicas of a stage."""

from tests.pipeline.conftest import replicas as replicas
