"""HTTP, WebSocket and SSE: the edge where decimal text becomes integers."""
