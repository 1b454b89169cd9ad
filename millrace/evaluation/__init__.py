"""How good recommendations are: a stream gone through in order, each event first asked for, then learned."""
