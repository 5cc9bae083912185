"""Attribution: what the training examples do to parameters and outputs."""
