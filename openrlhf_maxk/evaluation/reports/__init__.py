"""Reports: evaluations and their comparison come in; tables, figures and one HTML page go out."""
