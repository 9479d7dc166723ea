"""What detectors and classifiers share of torch: devices, state dicts."""
