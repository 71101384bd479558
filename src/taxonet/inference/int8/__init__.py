"""Int8 export: calibration, the search for a setting that keeps the accuracy, and what it reports."""
