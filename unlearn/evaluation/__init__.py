"""The evaluator: predict once, then metrics as pure functions of predictions and truth."""
