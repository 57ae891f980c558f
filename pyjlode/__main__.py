"""``python -m pyjlode``."""

from .cli import main

raise SystemExit(main())
