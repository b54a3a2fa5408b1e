"""The engine of this project in process: `modelyard.load(release).predict(rows)`."""

import timing

import modelyard


def engine(release: str) -> timing.Predict:
    """The release, opened."""
    runtime = modelyard.load(release)
    column = runtime.spec.inputs[0].column
    return lambda texts: [each["label"] for each in runtime.predict([{column: t} for t in texts])]


if __name__ == "__main__":
    timing.main(engine)
