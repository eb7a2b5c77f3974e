"""zoo: efficient image classifiers with pretrained weights, exact costs, one trainer and one ranked table."""
