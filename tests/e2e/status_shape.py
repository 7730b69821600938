"""Checks the shape of `cairn status --json` (standard input) of a healthy cluster of six chunkservers."""

import json
import sys

status = json.load(sys.stdin)
assert status["healthy"] is True, status
groups = status["groups"]
assert groups["healthy"] > 0 and groups["degraded"] == 0 and groups["lost"] == 0, groups
servers = status["chunkservers"]
assert len(servers) == 6, servers
for server in servers:
    assert {"id", "state", "address", "used_bytes", "total_bytes", "labels"} <= set(server), server
    assert server["state"] == "serving" and 0 < server["used_bytes"] < server["total_bytes"], server
assert {"extents", "extent_bytes", "windows_waiting", "chunks_waiting", "compactions", "bytes_rewritten"} <= set(status["compaction"]), status
assert status["masters"] and status["pools"][0]["scheme"] == "4+2" and status["sessions"], status
