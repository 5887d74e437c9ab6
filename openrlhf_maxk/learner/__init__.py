"""The learner: experience comes in, optimizer steps of whole groups are taken, new weights go out."""
