"""Result -> table, JSON, JSONL, CSV; no arithmetic beyond formatting."""
