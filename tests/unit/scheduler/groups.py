"""Transactions that share a commit, for sure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from frazil_scheduler.ledger.store import Store
from frazil_scheduler.ledger.transaction import Transaction


async def together(store: Store, *bodies: Callable[[Transaction], Any]) -> list[Any]:
    """Ask for transactions while the store's thread is busy; return what each came to."""
    gate = threading.Event()
    busy = asyncio.ensure_future(store.look(lambda _: gate.wait()))
    asked = [asyncio.ensure_future(store.run(body)) for body in bodies]
    await asyncio.sleep(0)  # all are in the queue now
    gate.set()
    await busy
    return await asyncio.gather(*asked, return_exceptions=True)
