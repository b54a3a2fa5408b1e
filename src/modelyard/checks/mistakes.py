"""The most confident mistakes: where to look first."""

from collections.abc import Sequence

from modelyard.checks import Answers, Check, Finding

MOST = 10


def mistakes(truth: Sequence[str], answers: Answers) -> Finding:
    """The wrong answers with the highest scores; `row` is the position among the rows given."""
    wrong = [
        (float(answer["score"]), row)
        for row, (true, answer) in enumerate(zip(truth, answers, strict=True))
        if true != str(answer["label"])
    ]
    chosen = sorted(wrong, key=lambda pair: (-pair[0], pair[1]))[:MOST]
    listed = [
        {"row": row, "truth": truth[row], "label": str(answers[row]["label"]), "score": score}
        for score, row in chosen
    ]
    return Finding((), {"wrong": len(wrong), "rows": len(truth), "listed": listed})


CHECK = Check("mistakes", needs=("label", "score"), measures=(), run=mistakes)
