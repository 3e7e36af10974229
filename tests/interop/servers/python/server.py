"""An MCP server on the official Python SDK 1.x or 2.x, or on FastMCP: `server.py sdk1|sdk2|fastmcp`.

MCP is at `/mcp`, with one tool. `/sessions` reads the SDK's own table. It prints where it listens, and ends
with its standard input.
"""

import asyncio
import os
import socket
import sys
import threading

import uvicorn
from starlette.responses import JSONResponse
from starlette.routing import Route


def test_simple_text() -> str:
    """Answers with a text."""
    return "This is a simple text response for testing."


def sdk1():
    from mcp.server.fastmcp import FastMCP

    server = FastMCP("interop", log_level="WARNING")
    server.tool()(test_simple_text)
    return server.streamable_http_app(), lambda: server.session_manager


def sdk2():
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("interop", log_level="WARNING")
    server.tool()(test_simple_text)
    return server.streamable_http_app(), lambda: server.session_manager


def fastmcp():
    from fastmcp import FastMCP

    server = FastMCP("interop")
    server.tool()(test_simple_text)
    app = server.http_app(path="/mcp")
    endpoint = next(route.endpoint for route in app.routes if getattr(route, "path", None) == "/mcp")
    # FastMCP makes its manager when the application starts.
    return app, lambda: endpoint.session_manager


def figures(manager):
    """What the SDK holds. Until 1.29 its table keeps the transports of sessions that were deleted."""
    transports = list(manager._server_instances.values())
    live = [transport for transport in transports if not transport.is_terminated]
    # A session is a task as well: `run_server` of the manager.
    running = [task for task in asyncio.all_tasks() if task.get_name().endswith("run_server")]
    return {"sessions": len(live), "tasks": len(running), "kept": len(transports)}


def main(setup):
    app, manager = setup()

    async def sessions(_):
        return JSONResponse(figures(manager()))

    app.router.routes.append(Route("/sessions", sessions))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


main({"sdk1": sdk1, "sdk2": sdk2, "fastmcp": fastmcp}[sys.argv[1]])
