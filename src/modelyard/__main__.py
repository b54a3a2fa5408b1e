"""`python -m modelyard` is `modelyard`."""

from modelyard.cli.main import main

raise SystemExit(main())
