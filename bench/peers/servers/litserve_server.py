"""LitServe with its own batching: RELEASE PORT."""

import sys

import litserve
from transformers import pipeline

MOST_ROWS = 32
WAIT_SECONDS = 0.01


class Texts(litserve.LitAPI):
    """The pipeline behind LitServe's steps."""

    def setup(self, device: str) -> None:
        """Open the model, once in each worker."""
        self.classify = pipeline("text-classification", model=sys.argv[1], device="cpu")

    def decode_request(self, request: dict) -> str:
        """The text of a request."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """Texts that came together."""
        return list(inputs)

    def predict(self, texts: list[str]) -> list[dict]:
        """Label and score of each text."""
        return self.classify(texts, batch_size=len(texts), truncation=True)

    def unbatch(self, output: list[dict]) -> list[dict]:
        """An answer for each."""
        return output

    def encode_response(self, output: dict) -> dict:
        """The answer as it is."""
        return output


if __name__ == "__main__":
    api = Texts(max_batch_size=MOST_ROWS, batch_timeout=WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error"
    )
