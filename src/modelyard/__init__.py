"""Modelyard: rows and a pre-trained model in, an audited, signed, served model out."""

__version__ = "0.1.0"
