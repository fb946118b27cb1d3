"""One `dapo-trl train`, from settings to results."""
