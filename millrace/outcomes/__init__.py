"""What came of each answer: impressions joined with what users did, as labelled slots. Pure: no clock, no client."""
