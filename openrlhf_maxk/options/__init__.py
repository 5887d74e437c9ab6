"""Options: a command line comes in, checked options of a run go out, and the record by which a run is known again."""
