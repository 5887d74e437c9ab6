"""Experience: scored groups come in; log-probs, advantages and metrics go out, dealt to the learner ranks by group."""
