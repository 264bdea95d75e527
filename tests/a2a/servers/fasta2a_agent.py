"""An agent on fasta2a, which shares no code with the SDK; others.py says which words it obeys."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn
from fasta2a import FastA2A, Worker
from fasta2a.broker import InMemoryBroker
from fasta2a.schema import Artifact, Message, Part, TaskIdParams, TaskSendParams
from fasta2a.storage import InMemoryStorage

WORKERS = 4  # each does one thing at a time, and a cancellation is a thing


class Obedient(Worker[Any]):
    async def run_task(self, params: TaskSendParams) -> None:
        identity, word = params["id"], params["message"]["parts"][0]["text"]
        await self.storage.update_task(identity, "working")
        await self.publish_status(identity, params["context_id"], "working")
        for _ in range(30_000 if word == "long" else 50):
            await asyncio.sleep(0.02)
            task = await self.storage.load_task(identity)
            if task is not None and task["status"]["state"] == "canceled":
                return
        if word == "fail":
            raise RuntimeError("It broke.")
        if word == "ask":
            await self.storage.update_task(identity, "input-required", new_messages=[_words("Which one?")])
            return
        artifact = Artifact(artifact_id="answer", parts=[Part(text=f"You said: {word}")])
        await self.storage.update_task(identity, "completed", new_artifacts=[artifact])

    async def cancel_task(self, params: TaskIdParams) -> None:
        if await self.storage.load_task(params["id"]) is not None:
            await self.storage.update_task(params["id"], "canceled")

    def build_message_history(self, history: list[Message]) -> list[Any]:
        return history

    def build_artifacts(self, result: Any) -> list[Artifact]:
        return []


def _words(text: str) -> Message:
    return Message(role="agent", parts=[Part(text=text)], message_id="question")


def main() -> None:
    port = int(sys.argv[1])
    storage, broker = InMemoryStorage(), InMemoryBroker()

    @asynccontextmanager
    async def lifespan(app: FastA2A) -> AsyncIterator[None]:
        async with app.task_manager, AsyncExitStack() as workers:
            for _ in range(WORKERS):
                await workers.enter_async_context(Obedient(broker=broker, storage=storage).run())
            yield

    app = FastA2A(storage=storage, broker=broker, lifespan=lifespan, url=f"http://127.0.0.1:{port}/")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
