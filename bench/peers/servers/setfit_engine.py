"""SetFit's ONNX recipe in process: its `export_onnx`, then a session of ONNX Runtime.

The fine-tuned model is told to SetFit as it would tell its own: a sentence-transformers body
that gives the first token's state, and a head in PyTorch.
"""

import tempfile
from pathlib import Path

import onnxruntime
import timing
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from setfit.compat import Dense
from setfit.exporters.onnx import export_onnx
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MOST_ROWS = 32


class Head(Dense):
    """What a BERT has above its first token's state: its pooler and classifier."""

    def __init__(self, network: torch.nn.Module) -> None:
        torch.nn.Module.__init__(self)
        self.pooler, self.classifier = network.bert.pooler, network.classifier

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of first tokens' states (B, W)."""
        return self.classifier(self.pooler.activation(self.pooler.dense(states)))


def exported(release: str, file: Path) -> None:
    """Write the model as SetFit's recipe does."""
    network = AutoModelForSequenceClassification.from_pretrained(release).eval()
    first_token = Pooling(network.config.hidden_size, "cls")
    body = SentenceTransformer(modules=[Transformer(release), first_token], device="cpu")
    export_onnx(body, Head(network), opset=14, output_path=str(file))


def engine(release: str) -> timing.Predict:
    """The exported model and its tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        exported(release, file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(release)
    names = AutoModelForSequenceClassification.from_pretrained(release).config.id2label

    def predict(texts: list[str]) -> list[str]:
        labels: list[str] = []
        for start in range(0, len(texts), MOST_ROWS):
            inputs = tokenizer(
                list(texts[start : start + MOST_ROWS]),
                padding=True,
                truncation=True,
                return_attention_mask=True,
                return_token_type_ids=True,
                return_tensors="np",
            )
            [logits] = session.run(None, dict(inputs))
            labels += [names[int(top)] for top in logits.argmax(1)]
        return labels

    return predict


if __name__ == "__main__":
    timing.main(engine)
