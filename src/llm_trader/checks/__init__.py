"""CHECK: leak check, agreement of two indexes, recall and vector comparison."""
