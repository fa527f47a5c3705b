#!/usr/bin/env python3
"""Carries bytes between plain TCP and the portal's TLS, for referees that speak no TLS.

untls.py PORTAL_PORT ALPN: prints the port that it listens on. Everything passes unchanged; each plain connection is
one TLS connection, and the end of one is the end of the other."""

import asyncio
import ssl
import sys


async def copy(reader, writer):
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main():
    port, alpn = int(sys.argv[1]), sys.argv[2]
    context = ssl._create_unverified_context()  # it is ours, on this machine
    context.set_alpn_protocols([alpn])

    async def carry(reader, writer):
        try:
            to_reader, to_writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="localhost")
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
