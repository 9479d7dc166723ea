"""What became of pre-labels: what prelabel wrote against what stands there after people's corrections."""
