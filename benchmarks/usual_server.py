"""The server that people write today: FastAPI around open_clip in eager fp32.

    python -m benchmarks.usual_server --model local-dir:FOLDER --port 9000

One model, labels encoded once at the start, one image a request, computed where the request is
handled. Written as tutorials write it, neither slowed down nor tuned.
"""

from __future__ import annotations

import argparse
import io
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image

from models.openclip import declare_missing_operators

declare_missing_operators()
import open_clip  # noqa: E402  # torchvision must be mended before


def make_app(model_id: str, labels: list[str]) -> FastAPI:
    model, _, preprocess = open_clip.create_model_and_transforms(model_id)
    tokenizer = open_clip.get_tokenizer(model_id)
    model.eval()
    with torch.no_grad():
        tokens = tokenizer([f"a photo of a {label}" for label in labels])
        text_features = model.encode_text(tokens)
        text_features /= text_features.norm(dim=-1, keepdim=True)
    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/classify")
    async def classify(files: Annotated[UploadFile, File()]) -> dict[str, Any]:
        image = preprocess(Image.open(io.BytesIO(await files.read())).convert("RGB")).unsqueeze(0)
        with torch.no_grad():
            image_features = model.encode_image(image)
            image_features /= image_features.norm(dim=-1, keepdim=True)
            probabilities = (100.0 * image_features @ text_features.T).softmax(dim=-1)[0]
        best = probabilities.topk(5)
        matches = [
            {"label": labels[position], "probability": float(probability)}
            for probability, position in zip(best.values, best.indices, strict=True)
        ]
        return {"results": [{"matches": matches}]}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--labels", required=True, help="a file with one label a line")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    with open(arguments.labels, encoding="utf-8") as file:  # noqa: PTH123
        labels = [line.strip() for line in file if line.strip()]
    uvicorn.run(make_app(arguments.model, labels), port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
