"""The bare echo: what HTTP, uvicorn and FastAPI cost before anything is computed."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI(openapi_url=None)


@app.get("/echo/{text}")
def echo(text: str) -> dict[str, str]:
    """The text."""
    return {"text": text}
