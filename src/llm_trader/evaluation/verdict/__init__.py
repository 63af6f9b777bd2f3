"""What the numbers mean, allowing for how many were looked at."""
