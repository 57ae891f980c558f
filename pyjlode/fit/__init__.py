"""``pyjlode fit`` and ``pyjlode predict``: neural ODEs of time series in CSV files."""
