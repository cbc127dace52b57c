"""Pages for a browser on this machine. Needs the extra `serve` (starlette, uvicorn); no torch, no network addresses."""
