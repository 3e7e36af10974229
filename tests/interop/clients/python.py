"""The official Python client, 1.x or 2.x, driven by commands: one a line in, one answer a line out.

Its contexts must be left by the task that entered them, so there is one task, and commands come in turn.
"""

import asyncio
import json
import logging
import os
import sys
from contextlib import AsyncExitStack

try:
    from mcp import Client

    LINE = 2
except ImportError:
    from mcp import ClientSession

    LINE = 1
    try:
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        from mcp.client.streamable_http import streamablehttp_client as streamable_http_client


class Kept(logging.Handler):
    """What the SDK logs: it reports in no other way."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append({"name": record.levelname, "message": record.getMessage()})


class Program:
    def __init__(self, kept):
        self.kept = kept
        self.stack = AsyncExitStack()
        self.client = None

    async def connect(self, url, modern=False):
        if LINE == 2:
            mode = "auto" if modern else "legacy"
            self.client = await self.stack.enter_async_context(Client(url, mode=mode))
            return {"version": self.client.session.protocol_version}
        read, write, _ = await self.stack.enter_async_context(streamable_http_client(url))
        self.client = await self.stack.enter_async_context(ClientSession(read, write))
        return {"version": (await self.client.initialize()).protocolVersion}

    async def call(self, tool, args, timeout):
        result = await asyncio.wait_for(self.client.call_tool(tool, args), timeout / 1000)
        return result.content[0].text

    async def cause(self, error):
        """A transport that breaks cancels what waits for it, and says why only when it is left."""
        if isinstance(error, asyncio.CancelledError):
            try:
                await self.stack.__aexit__(type(error), error, error.__traceback__)
            except BaseException as why:
                return why
        return error

    async def close(self):
        await self.stack.aclose()

    async def errors(self):
        messages, self.kept.messages = self.kept.messages, []
        return messages


def innermost(error):
    """Task groups wrap what went wrong in them."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


async def main():
    kept = Kept()
    logging.getLogger().addHandler(kept)
    program = Program(kept)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        answer = {"id": command["id"]}
        try:
            answer["value"] = await getattr(program, command["name"])(**command["args"])
        except (Exception, asyncio.CancelledError) as error:
            error = innermost(await program.cause(error))
            answer["error"] = {"name": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)
    os._exit(0)


asyncio.run(main())
