"""A pipeline of transformers behind FastAPI: RELEASE PORT.

As transformers' page on web servers has it: one pipeline, a queue before it, what waits goes as
one batch, and PyTorch runs in a thread of its own.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

MOST_ROWS = 32
release, port = sys.argv[1:]
classify = pipeline("text-classification", model=release, device="cpu")
torch_thread = ThreadPoolExecutor(1)
queue: "asyncio.Queue[tuple[str, asyncio.Future]]" = asyncio.Queue()


class Question(BaseModel):
    """One text."""

    text: str


def answers(texts: list[str]) -> list[dict]:
    """Label and score of each text."""
    return classify(texts, batch_size=len(texts), truncation=True)


async def run_queue() -> None:
    """Whatever waits is the next batch."""
    loop = asyncio.get_running_loop()
    while True:
        batch = [await queue.get()]
        while len(batch) < MOST_ROWS and not queue.empty():
            batch.append(queue.get_nowait())
        found = await loop.run_in_executor(torch_thread, answers, [text for text, _ in batch])
        for (_, told), answer in zip(batch, found, strict=True):
            told.set_result(answer)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The queue runs as long as the app does."""
    task = asyncio.create_task(run_queue())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(question: Question) -> dict:
    """The answer to one text."""
    told = asyncio.get_running_loop().create_future()
    await queue.put((question.text, told))
    return await told


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)
