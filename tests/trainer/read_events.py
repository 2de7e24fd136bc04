#!/usr/bin/env python3
"""Reads a folder's event files as TensorBoard itself does; prints {tag: [[step, value], ...]}.

Usage: read_events.py FOLDER   Exits 77 when the tensorboard package is not installed.
"""
import json
import sys

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    print(f"tensorboard is not installed: {error}", file=sys.stderr)
    sys.exit(77)

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})  # 0: keep all
events.Reload()
tags = events.Tags()["scalars"]
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags}))
