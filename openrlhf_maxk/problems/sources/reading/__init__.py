"""Reading: a data set's files come in, rows with fields of the wanted types go out."""
