"""Statistics: the rewards of all samples (:mod:`.scores`) come in; estimates, intervals and tests go out."""
