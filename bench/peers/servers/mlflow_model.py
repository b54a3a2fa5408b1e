"""The pipeline as a pyfunc model, which MLflow keeps as this file ("models from code")."""

from typing import Any

import mlflow


class Texts(mlflow.pyfunc.PythonModel):
    """Answers lists of texts."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Open the model, once in each worker."""
        from transformers import pipeline

        release = context.artifacts["release"]
        self.classify = pipeline("text-classification", model=release, device="cpu")

    def predict(self, context: object, model_input: list[str]) -> list[dict[str, Any]]:
        """Label and score of each text."""
        return self.classify(list(model_input), batch_size=32, truncation=True)


mlflow.models.set_model(Texts())
