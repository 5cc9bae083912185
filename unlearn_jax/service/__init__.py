"""A state that outlives kills and power cuts: request log, payloads, snapshots."""
