"""Tests of the readable twin: against oracles that share nothing with it, and against the documents."""
