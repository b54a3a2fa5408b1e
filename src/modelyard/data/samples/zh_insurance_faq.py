"""Questions on insurance and their answers, put into Chinese by a machine."""

from functools import partial

from modelyard.data.proposal import Proposal
from modelyard.data.samples import Sample
from modelyard.data.samples.insurance_faq import LICENCE, SETTINGS, SOURCE, write

SAMPLE = Sample(
    name="zh-insurance-faq",
    description="The same questions and answers on insurance in Chinese, by machine translation",
    rows=16_889,
    licence=LICENCE,
    language="zh",
    proposal=Proposal(
        inputs={"question": "text"},
        target="answers",
        kind="match",
        backbone={"text": "m3e-small"},
        others={"domain": "category"},
        settings=SETTINGS,
    ),
    file="rows.jsonl",
    source=SOURCE,
    write=partial(write, "zh"),
)
