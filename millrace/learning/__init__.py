"""Online learning of the ranker: parameters as a vector, the portable state of a line of learning, the learner."""
